"""Draw the masks of masked forwards.

A mask is a bool array (h, w) over the cells of a view, the backbone's patches; True hides the cell.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, TypedDict

import numpy as np

from densessl.constraints import Config, Count, Range
from densessl.errors import SettingError
from densessl.wording import choose

# Tries to find a block that fits, before the remaining cells are hidden one by one.
ATTEMPTS = 10


def draw_random(rng: np.random.Generator, grid: tuple[int, int], hidden: Count) -> np.ndarray:
    """Hide ``hidden`` of h x w cells, drawn uniformly without replacement (MAE).

    Args:
        grid: (h, w).
        hidden: number of cells that the masked branch does not see.
    """
    mask = np.zeros(grid, bool)
    mask.flat[rng.permutation(mask.size)[:hidden]] = True
    return mask


def draw_blocks(
    rng: np.random.Generator,
    grid: tuple[int, int],
    hidden: Count,
    min_block: Count = 16,
    max_block: Count | None = None,
    min_aspect: Annotated[float, Range(0, 1, above=True)] = 0.3,
    exactly: bool = True,
) -> np.ndarray:
    """Hide rectangles of random area, aspect and position, which may overlap, until ``hidden`` cells are hidden (BEiT,
    algorithm 1, as in the released codes of BEiT and SIM).

    A rectangle that would hide no new cell or too many, or that is as wide or as high as the grid, is drawn again.
    After ten failed tries, single cells make up the rest. Cells near the border are hidden less often: with 118 of
    14 x 14 cells hidden, a corner cell is hidden with probability 0.08 and a central cell with 0.94.

    Args:
        grid: (h, w).
        hidden: number of cells that the masked branch does not see.
        min_block: least cells of a block; once fewer are left to hide, a block may be as small as that number.
        max_block: most cells that a block may add; None for all that are left to hide.
        min_aspect: a block's aspect ratio is log-uniform from ``min_aspect`` to its inverse.
        exactly: False hides no single cells, so fewer than ``hidden`` cells may be hidden (BEiT).
    """
    mask = np.zeros(grid, bool)
    left = hidden
    while left:
        added = add_block(rng, mask, min_block, min(left, max_block or left), min_aspect)
        if not added:
            break
        left -= added
    if left and exactly:
        mask.flat[rng.permutation(np.flatnonzero(~mask))[:left]] = True
    return mask


def add_block(rng: np.random.Generator, mask: np.ndarray, smallest: int, budget: int, min_aspect: float) -> int:
    """Hide one rectangle, in place: about ``smallest`` to ``budget`` cells, of which at most ``budget`` are new.

    Returns:
        the number of newly hidden cells; 0 if ten tries found no such rectangle.
    """
    height, width = mask.shape
    for _ in range(ATTEMPTS):
        area = _between(rng, smallest, budget)
        aspect = math.exp(_between(rng, math.log(min_aspect), math.log(1 / min_aspect)))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h >= height or w >= width:
            continue
        top, left = (int(rng.integers(0, room, endpoint=True)) for room in (height - h, width - w))
        block = mask[top : top + h, left : left + w]
        added = h * w - int(block.sum())
        if 0 < added <= budget:
            block[:] = True
            return added
    return 0


def _between(rng: np.random.Generator, one: float, other: float) -> float:
    """Draw uniformly between two bounds in either order; ``Generator.uniform`` requires the lower one first."""
    return one + (other - one) * rng.random()


def draw_keep(
    rng: np.random.Generator, draw: Callable[..., np.ndarray], grid: tuple[int, int], **options
) -> np.ndarray:
    """Draw a mask and return its visible cells: row-major indices (L,) int64, ascending."""
    return np.flatnonzero(~draw(rng, grid, **options)).astype(np.int64)


KINDS = {"random": draw_random, "blocks": draw_blocks}


class MaskKeys(TypedDict):
    """Keys of every mask config, in addition to those of its type.

    Attributes:
        patch_size: side of a cell in pixels, equal to the backbone's patch size.
    """

    patch_size: Count


MaskConfig = Annotated[Mapping, Config(KINDS, given=("rng", "grid", "exactly"), also=MaskKeys)]


def build_mask(config: Mapping, size: tuple[int, int]) -> Callable[[np.random.Generator], np.ndarray]:
    """Build the function that draws the visible cells of a view from a generator; see :func:`draw_keep`.

    Args:
        config: ``dict(type="random", patch_size=16, hidden=147)`` or ``dict(type="blocks", patch_size=16, hidden=118,
            min_block=16, max_block=None, min_aspect=0.3)``.
        size: (width, height) of the view in pixels.

    Raises:
        SettingError: the type or a key is unknown, a key is missing, the patches do not tile the view, or a number is
            out of range.
    """
    options = dict(config)
    kind = options.pop("type", None)
    choose("views: mask.type", kind, KINDS)
    known = {"patch_size", "hidden"} | ({"min_block", "max_block", "min_aspect"} if kind == "blocks" else set())
    if not {"patch_size", "hidden"} <= set(options) <= known:
        raise SettingError(
            f"views: mask has keys {sorted(options)}, expected patch_size and hidden, of {sorted(known)}"
        )
    patch, hidden = options.pop("patch_size"), options["hidden"]
    if patch < 1 or size[0] % patch or size[1] % patch:
        raise SettingError(
            f"views: mask.patch_size is {patch}, expected a divisor of the view's {size[0]}x{size[1]} pixels"
        )
    grid = (size[1] // patch, size[0] // patch)
    bounds = {"hidden": (1, grid[0] * grid[1] - 1)}
    if kind == "blocks":
        smallest = options.setdefault("min_block", 16)
        bounds |= {"min_block": (1, hidden), "max_block": (smallest, hidden)}
        if not 0 < options.get("min_aspect", 0.3) <= 1:
            raise SettingError(f"views: mask.min_aspect is {options['min_aspect']}, expected more than 0, at most 1")
    for key, (low, high) in bounds.items():
        value = options.get(key)
        if value is not None and not (isinstance(value, int) and low <= value <= high):
            raise SettingError(
                f"views: mask.{key} is {value}, expected a number from {low} to {high} of {grid[1]}x{grid[0]} cells"
            )
    return partial(draw_keep, draw=KINDS[kind], grid=grid, **options)
