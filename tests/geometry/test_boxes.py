"""Overlaps against counted pixels, jitter against loops."""

import math

import torch

from densessl.geometry import box_area, clamp_boxes, jitter_boxes, paired_iou, pairwise_iou

LIMIT = torch.tensor([[40.0, 30.0]], dtype=torch.float64)


def whole_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes of whole pixels in 40 x 30, some of them empty."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64)
    return (corners * torch.tensor([12, 9]) * 3).round().sort(1).values.flatten(1)


def pixels(box: torch.Tensor) -> set[tuple[int, int]]:
    x0, y0, x1, y1 = (int(value) for value in box)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


def test_overlaps_are_those_of_the_pixels():
    first, second = whole_boxes(12, 0), whole_boxes(9, 1)
    second[:2] = first[:2]
    second[2] = torch.tensor([5.0, 5, 5, 20])  # empty
    first[2] = second[2]
    found = pairwise_iou(first, second)
    for a, row in zip(first, found):
        for b, value in zip(second, row):
            one, other = pixels(a), pixels(b)
            expected = len(one & other) / len(one | other) if one | other else 0
            assert abs(value.item() - expected) < 1e-12
            assert paired_iou(a, b) == value
    assert found[0, 0] == 1 and found[2, 2] == 0
    assert box_area(first).tolist() == [len(pixels(box)) for box in first]


def test_pairs_are_within_batches():
    first, second = whole_boxes(12, 2).reshape(3, 4, 4), whole_boxes(15, 3).reshape(3, 5, 4)
    found = pairwise_iou(first, second)
    assert found.shape == (3, 4, 5)
    assert all(torch.equal(found[n], pairwise_iou(first[n], second[n])) for n in range(3))


def test_clamped_boxes_are_inside():
    boxes = torch.tensor([[-3.0, 2, 50, 31], [41, 5, 45, 9], [1, 2, 3, 4]], dtype=torch.float64)
    assert clamp_boxes(boxes, LIMIT).tolist() == [[0, 2, 40, 30], [40, 5, 40, 9], [1, 2, 3, 4]]
    assert torch.equal(clamp_boxes(boxes[None], LIMIT[None]), clamp_boxes(boxes, LIMIT)[None])


def test_jitter_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    boxes, uniforms = whole_boxes(6, 4), torch.rand(6, 5, 4, generator=generator, dtype=torch.float64)
    limit = torch.tensor([[40.0, 30.0], [35.0, 28.0]], dtype=torch.float64).repeat(3, 1)
    found = jitter_boxes(boxes, uniforms, 0.6, 1.4, limit)
    clamped = 0
    for number, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        for copy, (a, b, c, d) in enumerate(uniforms[number].tolist()):
            x, y = (x0 + x1) / 2 + (x1 - x0) * 0.6 * (a - 0.5), (y0 + y1) / 2 + (y1 - y0) * 0.6 * (b - 0.5)
            w, h = (x1 - x0) * math.exp(1.4 * (c - 0.5)), (y1 - y0) * math.exp(1.4 * (d - 0.5))
            free = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            expected = [min(max(value, 0.0), limit[number, axis % 2].item()) for axis, value in enumerate(free)]
            torch.testing.assert_close(found[number, copy].tolist(), expected)
            clamped += free != expected
    assert clamped > 3


def test_the_middle_of_the_draws_changes_nothing():
    boxes = whole_boxes(6, 5)
    found = jitter_boxes(boxes, torch.full((6, 2, 4), 0.5, dtype=torch.float64), 0.6, 1.4, LIMIT.expand(6, 2))
    torch.testing.assert_close(found, boxes[:, None].expand(-1, 2, -1))
    assert jitter_boxes(boxes, torch.zeros(6, 0, 4), 0.6, 1.4, LIMIT.expand(6, 2)).shape == (6, 0, 4)
