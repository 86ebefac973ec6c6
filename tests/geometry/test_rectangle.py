"""Rectangles exchanged between images, against ramps whose pixels say where they come from."""

from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl import geometry as G


def starts(cells: int, side: int, aligned: bool) -> list[int]:
    """The start of every draw along one axis, of rectangles of ``cells`` cells of 32 pixels."""
    draws = [G.RectangleDraws(cells, cells, start, start) for start in range(side)]
    placed = [G.place_rectangle(item, (side, side), 32, aligned) for item in draws]
    assert all(item.left == item.top and item.width == item.height == 32 * cells for item in placed)
    return [item.left for item in placed]


@pytest.mark.parametrize(("cells", "share"), [(3, 0.5), (4, 143 / 224), (5, 176 / 224)])
def test_how_often_the_official_clamp_leaves_the_grid(cells, share):
    """.50, .638 and .786, by enumeration of all starts of 224 pixels."""
    official, clean = starts(cells, 224, aligned=False), starts(cells, 224, aligned=True)
    moved = [a for a, b in zip(official, clean) if a % 32]
    assert len(moved) / 224 == share and set(moved) == {223 - 32 * cells}
    assert set(clean) == set(range(0, 224 - 32 * cells + 1, 32))
    assert all(b == a + 1 for a, b in zip(official, clean) if a % 32)
    assert all(a == b for a, b in zip(official, clean) if not a % 32)


def test_a_late_start_official_and_clean():
    """Half a cell rounds to the even one; a clamped start is floored to the cell before it."""
    draws = G.RectangleDraws(3, 3, 200, 48)
    official = G.place_rectangle(draws, (224, 224), 32)
    assert official == (127, 64, 96, 96) and G.rectangle_cells(official, 32) == (3, 2, 3, 3)
    clean = G.place_rectangle(draws, (224, 224), 32, aligned=True)
    assert clean == (128, 64, 96, 96) and G.rectangle_cells(clean, 32) == (4, 2, 3, 3)
    assert G.place_rectangle(draws._replace(left=16, top=80), (224, 224), 32)[:2] == (0, 64)


def ramps(count: int, height: int, width: int) -> torch.Tensor:
    """Images whose pixels are (image, row, column)."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in (count, height, width)), indexing="ij")
    return torch.stack(axes, 1)


@pytest.mark.parametrize(("height", "width", "cell"), [(224, 224, 32), (160, 160, 16), (96, 131, 32), (70, 56, 14)])
def test_pixels_inside_come_from_the_partner_and_cells_cover_exactly_those(height, width, cell):
    rng = np.random.default_rng(0)
    images = ramps(3, height, width).to(memory_format=torch.channels_last)
    partner = torch.tensor([1, 2, 0])
    for whole in (False, True):
        for _ in range(20):
            draws = G.draw_rectangle(rng, (width, height), cell, 1, 3, whole)
            rectangle = G.place_rectangle(draws, (width, height), cell, aligned=True)
            composite = G.swap_rectangle(images, partner, rectangle)
            pasted = composite[:, 0] == partner[:, None, None]
            assert (pasted | (composite[:, 0] == torch.arange(3)[:, None, None])).all()
            assert torch.equal(composite[:, 1:], images[:, 1:])  # every pixel keeps its place
            assert pasted[0].sum() == rectangle.width * rectangle.height
            cells = G.rectangle_mask(G.rectangle_cells(rectangle, cell), (height // cell, width // cell))
            assert torch.equal(F.avg_pool2d(pasted[:1].float(), cell), cells.float())
    assert torch.equal(images, ramps(3, height, width))
    assert composite.is_contiguous(memory_format=torch.channels_last)


def test_the_official_clamp_takes_cells_the_rectangle_only_touches():
    images = ramps(2, 224, 224)
    rectangle = G.place_rectangle(G.RectangleDraws(3, 3, 223, 0), (224, 224), 32)
    pasted = G.swap_rectangle(images, torch.tensor([1, 0]), rectangle)[0, 0] == 1
    share = F.avg_pool2d(pasted[None].float(), 32)[0]
    mask = G.rectangle_mask(G.rectangle_cells(rectangle, 32), (7, 7))[0]
    assert share[0].tolist() == [0, 0, 0, 1 / 32, 1, 1, 31 / 32]
    assert mask[0].tolist() == [False, False, False, True, True, True, False]


def test_sizes_and_starts_are_drawn_uniformly():
    rng = np.random.default_rng(0)
    for whole in (False, True):
        drawn = [G.draw_rectangle(rng, (224, 160), 32, 2, 5, whole) for _ in range(3000)]
        for sizes in zip(*(item[:2] for item in drawn)):
            counts = Counter(sizes)
            assert set(counts) == {2, 3, 4} and min(counts.values()) > 900
        if whole:
            for size in (2, 3, 4):
                assert {item.left for item in drawn if item.width == size} == set(range(0, 32 * (7 - size), 32))
                assert {item.top for item in drawn if item.height == size} == set(range(0, 32 * (5 - size), 32))
        else:
            assert max(item.left for item in drawn) > 215 and 150 < max(item.top for item in drawn) < 160
            assert min(min(item[2:]) for item in drawn) == 0


@pytest.mark.parametrize(("lower", "upper"), [(0, 2), (3, 3), (2, 8)])
def test_sizes_that_leave_no_rectangle_or_no_canvas_are_refused(lower, upper):
    with pytest.raises(ValueError, match=rf"lower={lower} and upper={upper} cells of 32.*7 x 7 cells"):
        G.draw_rectangle(np.random.default_rng(0), (224, 224), 32, lower, upper)


def test_a_rectangle_as_large_as_its_view_is_refused():
    with pytest.raises(ValueError, match="96 x 64 pixels is not smaller than its view of 96 x 160"):
        G.place_rectangle(G.RectangleDraws(3, 2, 0, 0), (96, 160), 32)
