"""What the conformance suite runs: one module a method, each with a dict ``CASES`` of :class:`Case` by name."""

import pkgutil
from dataclasses import dataclass, field
from importlib import import_module

EMA = dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.9))
STOP = dict(kind="stop_gradient")
AFTER = dict(kind="ema", momentum=0.9, timing="after_step")
SYNC = dict(type="SyncBN")


@dataclass(frozen=True)
class Case:
    """A small model on which a method's promises are checked.

    Attributes:
        objectives: configs, a few channels wide.
        targets: those the method's configs use.
        sizes: of the batch's views in pixels.
        uniforms: counts of further random numbers by view and name (``ViewSpec.uniforms``).
        regions: counts of random numbers of each region by name; None for a batch without regions.
        masks: numbers of cells and of those a mask leaves, by view (``ViewSpec.mask``).
        backbone, neck, head: configs; None for the toy ResNet (two outputs, 4 and 2 cells a side at 64 pixels), no neck
            and no head.
        tokens: it works on a transformer's sequences; other backbones are refused.
        patch_size: in pixels, of the small ViT that it also runs on; the sides of its views are multiples of it.
        permutes: whether the order of the batch must not matter.
        two_ranks: objectives of the one process that two processes are compared with, where it has to be told the
            split.
        single_image: "finite", or "refused" where a head's batch norm cannot do with one image.
        collapsed: name of the logged figure and the value constant features drive it to (within .02).
        bf16: largest deviation of the loss under autocast, relative to max(1, loss).
        bf16_draws: of the weights, over which that deviation is averaged.
    """

    objectives: list[dict]
    targets: tuple[dict, ...] = (EMA,)
    sizes: tuple[int, ...] = (64, 64)
    uniforms: dict[int, dict[str, int]] = field(default_factory=dict)
    regions: dict[str, int] | None = None
    masks: dict[int, tuple[int, int]] = field(default_factory=dict)
    backbone: dict | None = None
    neck: dict | None = None
    head: dict | None = None
    tokens: bool = False
    patch_size: int = 8
    permutes: bool = True
    two_ranks: list[dict] | None = None
    single_image: str = "finite"
    collapsed: tuple[str, float] | None = None
    bf16: float = 0.05
    bf16_draws: int = 1


def all_cases() -> dict[str, Case]:
    """Cases of all modules of this package."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        found.update(import_module(f"{__name__}.{module.name}").CASES)
    return found
