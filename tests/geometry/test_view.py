"""Point, box, overlap and grid maps of ViewGeometry against direct constructions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from densessl import geometry as G
from densessl.geometry import affine


def views(*items):
    return G.ViewGeometry.stack(items)


numbers = st.floats(-50, 50)


@given(st.tuples(*[numbers] * 6), st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
def test_points_round_trip(entries, points):
    matrix = np.array(entries).reshape(2, 3)
    if abs(np.linalg.det(matrix[:, :2])) < 1e-2:
        return
    geometry = views((matrix, (10, 20), (30, 40)))
    points = torch.tensor([points], dtype=torch.float64)
    source = G.to_source(geometry, points)
    np.testing.assert_allclose(source[0], affine.apply(matrix, points[0].numpy()), atol=1e-9)
    np.testing.assert_allclose(G.to_view(geometry, source), points, atol=1e-6)


def test_cell_centres_of_a_flipped_crop():
    matrix = affine.compose(affine.crop(10, 20), affine.resize((40, 20), (8, 4)), affine.hflip(8))
    centres = G.cell_centres(views((matrix, (8, 4), (100, 100))), (2, 4))[0]
    assert centres.tolist() == [[x, y] for y in (25.0, 35.0) for x in (45.0, 35.0, 25.0, 15.0)]


@pytest.mark.parametrize("sources", [(100, 80), torch.tensor([[100, 80], [90, 70], [100, 80]])], ids=["one", "each"])
def test_crops_by_their_boxes_lie_where_the_operations_put_them(sources):
    """Cut out, resized to 8 x 4, the second one mirrored."""
    boxes = [(10, 20, 50, 40), (0, 5, 90, 70), (3, 3, 4, 6)]
    sizes = torch.as_tensor(sources).expand(3, 2).tolist()
    expected = views(
        *(
            (
                affine.compose(
                    affine.crop(x0, y0),
                    affine.resize((x1 - x0, y1 - y0), (8, 4)),
                    *[affine.hflip(8)] * (number == 1),
                ),
                (8, 4),
                tuple(sizes[number]),
            )
            for number, (x0, y0, x1, y1) in enumerate(boxes)
        )
    )
    boxes = torch.tensor(boxes, dtype=torch.float32)
    found = G.ViewGeometry.from_crops(boxes, (8, 4), sources, torch.tensor([False, True, False]))
    for one, other in zip(found, expected):
        assert one.dtype == other.dtype == torch.float64
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    unflipped = G.ViewGeometry.from_crops(boxes, (8, 4), sources)
    assert torch.equal(unflipped.matrix[[0, 2]], found.matrix[[0, 2]]) and (unflipped.matrix[:, 0, 0] > 0).all()


def test_overlap_and_disjoint_views():
    def box(left, top, width, height):
        return (
            affine.compose(affine.crop(left, top), affine.resize((width, height), (8, 8))),
            (8, 8),
            (100, 100),
        )

    found, area = G.overlap(views(box(0, 0, 50, 40), box(0, 0, 10, 10)), views(box(30, 10, 40, 40), box(50, 0, 10, 10)))
    assert found[0].tolist() == [30, 10, 50, 40] and area.tolist() == [600, 0]


def test_boxes_are_flipped_clipped_and_weighed():
    matrix = affine.compose(affine.crop(10, 0), affine.resize((20, 20), (40, 40)), affine.hflip(40))
    boxes = torch.tensor([[[15.0, 5, 25, 10], [0, 0, 20, 10], [50, 50, 60, 60], [12, 3, 12, 9]]])
    mapped, kept = G.boxes_to_view(views((matrix, (40, 40), (100, 100))), boxes)
    assert mapped[0, 0].tolist() == [10, 10, 30, 20] and mapped[0, 1].tolist() == [20, 0, 40, 20]
    assert kept[0].tolist() == [1, 0.5, 0, 0]
    x0, y0, x1, y1 = mapped[0, 2].tolist()
    assert 0 <= x0 <= x1 <= 40 and 0 <= y0 <= y1 <= 40


@pytest.mark.parametrize("turn", [0, 90, 33])
def test_sampling_grid_reads_the_source_position(turn):
    """A feature map that holds source coordinates, read at source points, returns those points."""
    matrix = affine.compose(affine.crop(10, 20), affine.resize((60, 50), (64, 64)), affine.rotate(turn, (64, 64)))
    geometry = views((matrix, (64, 64), (100, 100)))
    ramp = G.cell_centres(geometry, (16, 16)).mT.unflatten(-1, (16, 16))
    points = torch.tensor([[[35.0, 40], [45, 50], [40.5, 44.25]]], dtype=torch.float64)
    read = F.grid_sample(ramp, G.sampling_grid(geometry, points)[:, None], align_corners=False)[0, :, 0].T
    np.testing.assert_allclose(read, points[0], atol=1e-9)


def test_index_selects_rows():
    geometry = views(*[(affine.crop(i, 0), (8, 8), (9, 9)) for i in range(3)])
    assert geometry.index(torch.tensor([2, 0])).matrix[:, 0, 2].tolist() == [2, 0]
