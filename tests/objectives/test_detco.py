"""DetCo against loops in float64 and against MoCo, and its tiles against a coordinate ramp."""

import math

import pytest
import torch
import torch.nn.functional as F

from densessl.augment.jigsaw import jigsaw_corners
from densessl.data.placed import Placed
from densessl.data.rng import keyed_rng
from densessl.data.views import ViewSpec, cut_view, draw_crop
from densessl.geometry import ViewGeometry, affine, cell_centres
from densessl.registry import OBJECTIVES
from densessl.schedules import Step
from tests.objectives.toy import rows, take_step, toy_batch, toy_model

SMALL = dict(type="DetCo", levels=(0, 1), weights=(0.25, 1.0), hidden=12, local_hidden=10, dim=8, length=12, tile=32)
SIZES, UNIFORMS = (64, 64, 102, 102), {2: dict(jigsaw=27), 3: dict(jigsaw=27)}


def batch_of(images=4, seed=0):
    return toy_batch(images, SIZES, torch.float64, seed, UNIFORMS)


def nce(query, key, bank, temperature=0.2):
    """InfoNCE of one row, term by term."""
    positive = math.exp((query @ key).item() / temperature)
    return -math.log(positive / (positive + sum(math.exp((query @ other).item() / temperature) for other in bank)))


def test_losses_match_a_loop_over_images_stages_and_tiles():
    model, batch = toy_model([SMALL], dtype=torch.float64), batch_of()
    objective = model.objectives["detco"]
    banks = {name: objective.queue.keys(name).clone() for name in objective.queue.names}
    expected = {"gg": 0.0, "ll": 0.0, "gl": 0.0}
    tiles = objective.derive(batch, Step(0))
    vectors = {}
    for which, views, name in (("online", 0, "tiles_query"), ("target", 1, "tiles_key")):
        branch = model.online if which == "online" else model.target.branch(model.online)
        with torch.no_grad():
            whole, patches = branch(batch.views[views]).levels, branch(tiles[name].images).levels
            for s in range(2):
                for n in range(4):
                    slots = [patches[s][i].mean((1, 2)) for i in range(36) if tiles[name].owner[i] == n]
                    g = branch.projectors[f"detco_global{s}"](whole[s][n : n + 1].mean((2, 3)))
                    v = branch.projectors[f"detco_local{s}"](torch.cat(slots)[None])
                    vectors[which, s, n] = F.normalize(g)[0], F.normalize(v)[0]
    for s, weight in enumerate((0.25, 1.0)):
        for n in range(4):
            (q_g, q_l), (k_g, k_l) = vectors["online", s, n], vectors["target", s, n]
            expected["gg"] += weight / 4 * nce(q_g, k_g, banks[f"global{s}"])
            expected["ll"] += weight / 4 * nce(q_l, k_l, banks[f"local{s}"])
            expected["gl"] += weight / 4 * nce(q_l, k_g, banks[f"global{s}"])
    figures = toy_model([SMALL], dtype=torch.float64).loss(batch)
    for term, value in expected.items():
        assert figures[f"detco.loss_{term}"].item() == pytest.approx(value, rel=1e-10)


def test_every_queue_takes_the_keys_of_its_kind_and_stage():
    model = toy_model([SMALL], dtype=torch.float64)
    queue = model.objectives["detco"].queue
    before = {name: queue.keys(name).clone() for name in queue.names}
    assert set(queue.names) == {"global0", "global1", "local0", "local1"}
    model.loss(batch_of())
    pushed = [queue.keys(name)[:4] for name in queue.names]
    for name in queue.names:
        assert torch.equal(queue.keys(name)[4:], before[name][4:])
    for i, one in enumerate(pushed):
        assert torch.allclose(one.norm(dim=1), one.new_ones(4))
        assert all(not torch.allclose(one, other) for other in pushed[:i])


def test_the_last_stage_alone_without_patches_is_moco():
    """Three steps, bit for bit: losses, queue and backbone."""
    detco = dict(SMALL, levels=(0, 1), weights=(0.0, 1.0), local=False)
    moco = dict(type="MoCo", hidden=12, dim=8, length=12, temperature=0.2)
    one, other = toy_model([detco], dtype=torch.float64), toy_model([moco], dtype=torch.float64)
    names = {"projectors.moco_head": "projectors.detco_global1", "objectives.moco": "objectives.detco"}
    names |= {f"queue.{part}_keys": f"queue.{part}_global1" for part in ("bank", "written", "state")}

    def renamed(key):
        for old, new in names.items():
            key = key.replace(old, new)
        return key

    one.load_state_dict({renamed(key): value for key, value in other.state_dict().items()}, strict=False)
    for seed in range(3):
        batch = toy_batch(dtype=torch.float64, seed=seed)
        assert torch.equal(take_step(one, batch), take_step(other, batch))
    state = one.state_dict()
    for key, value in other.state_dict().items():
        assert torch.equal(state[renamed(key)], value), key


def ramp_view(index: int, spec: ViewSpec, width=251, height=203):
    """A crop of an image whose pixels are their coordinates, through the real cutting."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([x, y, torch.full_like(x, 128)], -1).byte().numpy()
    placed = Placed(image, affine.identity(), (width, height))
    return cut_view(placed, draw_crop(keyed_rng(1, "crop", 0, index), (width, height), spec), spec)


def test_tiles_lie_where_their_geometry_says():
    spec = ViewSpec(size=96, scale=(0.6, 1.0))
    cut = [ramp_view(index, spec) for index in range(6)]
    batch = toy_batch(6, (64, 64, 96, 96), uniforms={2: dict(jigsaw=27), 3: dict(jigsaw=27)})
    batch.views[2] = torch.stack([torch.from_numpy(view.image.copy()) for view in cut]).permute(0, 3, 1, 2).double()
    batch.geometry[2] = ViewGeometry.stack([(view.to_source, view.size, view.source_size) for view in cut])
    assert len({bool(sign) for sign in batch.geometry[2].matrix[:, 0, 0] < 0}) == 2  # some are mirrored
    tiles = OBJECTIVES.build(dict(SMALL, tile=24)).derive(batch, Step(0))["tiles_query"]
    assert tiles.images.shape == (54, 3, 24, 24) and tiles.owner.tolist() == [n for n in range(6) for _ in range(9)]
    assert (tiles.geometry.view_size == 24).all()
    assert torch.equal(tiles.geometry.source_size, batch.geometry[2].source_size[tiles.owner])
    told = cell_centres(tiles.geometry, (24, 24)).mT.unflatten(-1, (24, 24))
    inside = ((told > 3) & (told < torch.tensor([251, 203])[:, None, None] - 3)).all(1)
    error = (tiles.images[:, :2] + 0.5 - told).abs().amax(1)
    # Half a grey value of rounding, and the filter's fixed point.
    assert inside.float().mean() > 0.9 and error[inside].max() < 0.6


def test_tiles_are_one_in_each_cell_in_every_order():
    uniforms = torch.from_numpy(keyed_rng(0, "jigsaw").random((4000, 27)))
    corners = jigsaw_corners(uniforms, (255, 255), 3, 64)
    cells, offsets = corners // 85, corners % 85
    assert offsets.min() == 0 and offsets.max() == 21
    assert (cells[..., 1] * 3 + cells[..., 0]).sort(1).values.eq(torch.arange(9)).all()
    slots = cells[..., 1] * 3 + cells[..., 0]
    counts = torch.stack([slots.eq(cell).sum(0) for cell in range(9)])  # of each cell in each slot
    assert (counts - 4000 / 9).abs().max() < 100  # 5 standard deviations of a binomial
    assert torch.stack([offsets.flatten(0, 1)[:, axis].bincount(minlength=22) for axis in (0, 1)]).min() > 1400
    wide = jigsaw_corners(uniforms, (75, 255), 3, 20)
    assert wide.flatten(0, 1).amax(0).tolist() == [255 - 20, 75 - 20]


def test_a_sample_has_its_own_tiles_whatever_the_batch():
    objective, batch = OBJECTIVES.build(SMALL), batch_of()
    whole = objective.derive(batch, Step(0))["tiles_key"]
    alone = objective.derive(rows(batch, torch.tensor([2])), Step(5))["tiles_key"]
    assert torch.equal(whole.images[18:27], alone.images)
    first, second = (objective.derive(batch, Step(0))[name].geometry.matrix for name in ("tiles_query", "tiles_key"))
    assert not torch.equal(first, second)


def test_errors_name_the_key():
    with pytest.raises(ValueError, match=r"objectives.detco.views is \(0, 1\); with local=True it takes 4 views"):
        toy_model([dict(SMALL, views=(0, 1))])
    with pytest.raises(ValueError, match=r"objectives.detco.weights is \(1.0,\), expected one for each of the levels"):
        toy_model([dict(SMALL, weights=(1.0,))])
    with pytest.raises(ValueError, match=r"give views\[2\] uniforms=dict\(jigsaw=27\)"):
        toy_model([SMALL]).loss(toy_batch(sizes=SIZES))
    with pytest.raises(ValueError, match=r"jigsaw grid=2 takes 12 numbers"):
        toy_model([dict(SMALL, grid=2)]).loss(batch_of())
    with pytest.raises(ValueError, match=r"jigsaw tile=35: the 3x3 cells of a 102x102 view are \(34, 34\)"):
        toy_model([dict(SMALL, tile=35)]).loss(batch_of())
