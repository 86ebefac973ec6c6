"""RoIAlign over several maps, on maps that are ramps: what is read at a place is the place."""

import pytest
import torch

from densessl.branches.roi import align_regions, assign_levels

SIZE = torch.tensor([96.0, 64.0], dtype=torch.float64)  # width and height of the view
GRIDS = ((16, 24), (8, 12), (4, 6))


def ramps(images: int = 2) -> list[torch.Tensor]:
    """Maps whose channels are the view's x and y at their cells, the image's number, and the level's."""
    maps = []
    for number, (height, width) in enumerate(GRIDS):
        x = (torch.arange(width, dtype=torch.float64) + 0.5) / width * SIZE[0]
        y = (torch.arange(height, dtype=torch.float64) + 0.5) / height * SIZE[1]
        item = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
        item = torch.cat([item, torch.zeros(1, height, width), torch.full((1, height, width), number)])
        item = item.repeat(images, 1, 1, 1)
        item[:, 2] += torch.arange(images)[:, None, None]
        maps.append(item)
    return maps


def some_boxes(count: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes half a cell of the coarsest map away from the border, where ramps go on; their images and levels."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64).sort(1).values
    boxes = (8 + corners * (SIZE - 16)).flatten(1)
    return boxes, torch.arange(count) % 2, torch.arange(count) * 2 % 3


def limits(count: int) -> torch.Tensor:
    return SIZE.expand(count, 2)


def test_every_level_reads_where_the_box_is():
    boxes, owner, level = some_boxes()
    found = align_regions(ramps(), boxes, owner, level, limits(9), 3)
    assert found.shape == (9, 4, 3, 3)
    for box, image, number, features in zip(boxes, owner, level, found):
        centres = (torch.arange(3, dtype=torch.float64) + 0.5) / 3
        x, y = box[0] + centres * (box[2] - box[0]), box[1] + centres * (box[3] - box[1])
        torch.testing.assert_close(features[0], x.expand(3, 3))
        torch.testing.assert_close(features[1], y[:, None].expand(3, 3))
        assert (features[2] == image).all() and (features[3] == number).all()


def test_sides_need_not_be_multiples_of_the_stride():
    """Maps of 7 x 5 cells for views of 96 x 64: two scales."""
    x = ((torch.arange(7, dtype=torch.float64) + 0.5) / 7 * 96).expand(5, 7)
    y = ((torch.arange(5, dtype=torch.float64) + 0.5) / 5 * 64)[:, None].expand(5, 7)
    box = torch.tensor([[20.0, 15, 60, 50]], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.int64)
    found = align_regions([torch.stack([x, y])[None]], box, zero, zero, limits(1), 1)
    torch.testing.assert_close(found.flatten().tolist(), [40.0, 32.5])


def test_whole_cells_are_averaged():
    """With as many samples as cells each of them counts alike."""
    item = torch.rand(1, 2, *GRIDS[0], dtype=torch.float64)  # cells of 4 x 4 pixels
    box, zero = torch.tensor([[8.0, 12, 32, 52]], dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    found = align_regions([item], box, zero, zero, limits(1), 2)
    cells = item[0, :, 3:13, 2:8].unflatten(1, (2, 5)).unflatten(3, (2, 3))
    torch.testing.assert_close(found[0], cells.mean((2, 4)))


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
def test_chunks_and_heads_change_nothing(chunk):
    boxes, owner, level = some_boxes()
    weight = torch.rand(36, 5, dtype=torch.float64)
    seen = []

    def head(features):
        seen.append(len(features))
        return features.flatten(1) @ weight

    whole = align_regions(ramps(), boxes, owner, level, limits(9), 3).flatten(1) @ weight
    torch.testing.assert_close(align_regions(ramps(), boxes, owner, level, limits(9), 3, head, chunk), whole)
    assert sum(seen) == 9 and max(seen) == min(chunk, 3)


def test_gradients_reach_the_map_that_was_read_and_no_other():
    maps = [item.requires_grad_() for item in ramps()]
    boxes, owner, level = some_boxes()
    chosen = level != 1
    align_regions(maps, boxes[chosen], owner[chosen], level[chosen], limits(int(chosen.sum())), 2).sum().backward()
    # Each output cell is a mean of bilinear values: its weights sum to one.
    sums = [item.grad.sum().item() for item in maps]
    torch.testing.assert_close(sums, [3 * 4 * 4.0, 0.0, 3 * 4 * 4.0])


def test_no_region_at_all_gives_zero_gradients():
    maps = [item.requires_grad_() for item in ramps()]
    none = torch.zeros(0, dtype=torch.int64)
    head = torch.nn.Linear(16, 3).double()
    found = align_regions(
        maps,
        torch.zeros(0, 4, dtype=torch.float64),
        none,
        none,
        limits(0),
        2,
        lambda features: head(features.flatten(1)),
    )
    assert found.shape == (0, 3)
    found.sum().backward()
    assert all(item.grad is not None and not item.grad.any() for item in (*maps, *head.parameters()))


def test_half_precision_maps_are_read_in_single_precision():
    boxes, owner, level = some_boxes()
    maps = [item.bfloat16() for item in ramps()]
    with torch.autocast("cpu", torch.bfloat16):
        found = align_regions(maps, boxes, owner, level, limits(9), 3)
    expected = align_regions([item.float() for item in maps], boxes, owner, level, limits(9), 3)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_levels_by_size():
    side = torch.tensor([5.0, 48, 48.01, 96, 192, 192.5, 224, 225, 400])
    boxes = torch.stack([0 * side, 0 * side, side * 2, side / 2], 1).double()
    view = torch.tensor([[224.0, 224.0]], dtype=torch.float64).expand(9, 2)
    found = assign_levels(boxes, (48, 96, 192, 224), view)
    assert found.tolist() == [0, 0, 1, 1, 2, 3, 3, 0, 0]
    # Twice the boxes in twice the view; half the view in a reference of half its side.
    assert torch.equal(assign_levels(2 * boxes, (48, 96, 192, 224), 2 * view), found)
    assert torch.equal(assign_levels(boxes, (24, 48, 96, 112), view, reference=112), found)
    wide = view * torch.tensor([2, 0.5], dtype=torch.float64)
    assert torch.equal(assign_levels(boxes, (48, 96, 192, 224), wide), found)
