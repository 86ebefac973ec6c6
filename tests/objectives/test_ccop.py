"""CCOP's two losses against loops, what its regions, queue and head are, and ranks without any region."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import roi_align

from densessl.data.batch import SampleRegions, pack_regions
from densessl.errors import SettingError
from densessl.objectives.ccop import CCOP, between_images, by_image, over_the_run
from densessl.schedules import Horizon, Step
from tests.distributed import run_pair
from tests.objectives.cases.ccop import CASES
from tests.objectives.toy import HORIZON, rows, toy_batch, toy_model, unpacked, without_overlap

ONE = CASES["ccop-one-level"].objectives[0]


def setup(images=4, seed=0, **options):
    """A float64 model of the region terms alone on one map, its objective, and a batch."""
    model = toy_model([dict(ONE, **options)], dtype=torch.float64)
    return model, model.objectives["ccop"], toy_batch(images, dtype=torch.float64, seed=seed, regions=dict(jitter=8))


def overlap(a, b):
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in range(2))
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def embedding(branch, view, image, box):
    """The vector of a box in one view of 64 pixels, whose map has 2 x 2 cells; read alone."""
    features = branch.backbone(view)[-1][image : image + 1]
    box = torch.tensor([[0.0, *box]], dtype=torch.float64)
    region = roi_align(features, box, 3, spatial_scale=1 / 32, sampling_ratio=0, aligned=True)
    return F.normalize(branch.projectors["ccop_regions"](region.flatten(1)), dim=1)[0]


def by_loops(model, batch):
    """Terms of loss_region and of loss_intra, and what each region's positive is harder by, box by box."""
    objective, regions = model.objectives["ccop"], batch.regions
    least, xy, wh = objective.curriculum(Step(0))
    bank = objective.queue.keys("regions").clone()
    target = model.target.branch(model.online)
    found = []
    for m, image in enumerate(regions.owner.tolist()):
        boxes = [item[m].tolist() for item in regions.boxes]
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in boxes]
        if all(item[m] > 0.6 for item in regions.kept) and min(areas) > objective.min_area:
            found.append((m, image, *([min(max(value, 0), 63) for value in box] for box in boxes)))
    region, gaps, vectors = [], [], []
    for m, image, first, second in found:
        q = embedding(model.online, batch.views[0], image, first)
        own = embedding(target, batch.views[1], image, second)
        options = [own]
        x, y = (second[0] + second[2]) / 2, (second[1] + second[3]) / 2
        w, h = second[2] - second[0], second[3] - second[1]
        for a, b, c, d in regions.draws["jitter"][m].reshape(-1, 4).tolist():
            cx, cy = x + w * xy * (a - 0.5), y + h * xy * (b - 0.5)
            cw, ch = w * math.exp(wh * (c - 0.5)), h * math.exp(wh * (d - 0.5))
            box = [cx - cw / 2, cy - ch / 2, cx + cw / 2, cy + ch / 2]
            box = [min(max(value, 0), 64) for value in box]
            if overlap(box, second) >= least:
                options.append(embedding(target, batch.views[1], image, box))
        positive = min(options, key=lambda key: (q @ key).item()).detach()
        logits = torch.cat([(q @ positive)[None], bank @ q]) / objective.temperature
        region.append(logits.logsumexp(0) - logits[0])
        gaps.append((q @ own - q @ positive).item())
        vectors.append((image, second, q, own.detach()))
    hinges = []
    for j, (image, box, q, own) in enumerate(vectors):
        for i, (other, other_box, negative, _) in enumerate(vectors):
            if i != j and image == other and overlap(box, other_box) < 0.05:
                hinges.append((negative @ own - q @ own + objective.margin).clamp(min=0))
    return region, hinges, gaps


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_both_losses_and_their_gradients_against_loops(seed):
    model, _, batch = setup(seed=seed, iou_threshold=0.6, jitter_xy=0.4, jitter_wh=0.8)
    region, hinges, gaps = by_loops(model, batch)
    expected = sum(region) / len(region), sum(hinges) / len(hinges)
    weights = list(model.online.parameters())
    gradients = torch.autograd.grad(sum(expected), weights)
    figures = model.loss(batch)
    for name, value in zip(("region", "intra"), expected):
        torch.testing.assert_close(figures[f"ccop.loss_{name}"], value, rtol=1e-10, atol=1e-12)
    loss, _ = model.parse_losses(figures)
    for found, wanted in zip(torch.autograd.grad(loss, weights), gradients):
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-11)
    assert figures["ccop.regions"] == len(region) and figures["ccop.valid_pairs"] == len(hinges) > 0
    torch.testing.assert_close(figures["ccop.hardest_gap"].item(), sum(gaps) / len(gaps))
    assert max(gaps) > 1e-4, "no copy was harder than the region itself"


def test_the_two_losses_are_weighted():
    model, _, batch = setup()
    plain = model.loss(batch)
    model, _, batch = setup(region_weight=0.25, intra_weight=3.0)
    weighted = model.loss(batch)
    torch.testing.assert_close(weighted["ccop.loss_region"], 0.25 * plain["ccop.loss_region"])
    torch.testing.assert_close(weighted["ccop.loss_intra"], 3 * plain["ccop.loss_intra"])


def test_thresholds_are_those_of_the_reference_view():
    """Twice the view with twice the sizes changes neither who survives nor the level."""
    _, objective, batch = setup(min_area=700)
    larger = batch._replace(
        geometry=[
            item._replace(matrix=item.matrix * torch.tensor([0.5, 0.5, 1]), view_size=2 * item.view_size)
            for item in batch.geometry
        ]
    )
    larger = larger._replace(regions=pack_regions(unpacked(batch.regions, 4), larger.geometry))
    few, same = objective.surviving(batch), objective.surviving(larger)
    assert torch.equal(few.source, same.source) and 0 < len(few.source) < len(batch.regions.source)
    assert torch.allclose(2 * few.boxes[0].clamp(max=62), same.boxes[0].clamp(max=124))
    assert max(item.max().item() for item in few.boxes) == 63 and max(item.max().item() for item in same.boxes) == 127


def test_thresholds_are_exclusive():
    _, objective, batch = setup(images=1, min_area=100)
    whole = batch.geometry[0]._replace(
        matrix=torch.eye(2, 3, dtype=torch.float64)[None], source_size=batch.geometry[0].view_size
    )
    boxes = torch.tensor(
        [[0, 0, 10, 10], [0, 0, 10, 11], [-4, 0, 6, 20], [-3, 0, 7, 20], [60, 50, 64, 90]], dtype=torch.float64
    )
    sample = SampleRegions(boxes.numpy(), torch.ones(5).numpy(), {"jitter": torch.zeros(5, 4).numpy()})
    batch = batch._replace(geometry=[whole, whole], regions=pack_regions([sample], [whole, whole]))
    found = objective.surviving(batch)
    assert found.source.tolist() == boxes[[1, 3]].tolist()  # 110 pixels, and 0.7 of 200
    assert found.boxes[1].tolist() == [[0, 0, 10, 11], [0, 0, 7, 20]]


def test_the_queue_gets_the_positives_image_by_image():
    for truncate in (False, True):
        model, objective, batch = setup(length=20, truncate=truncate)
        count = int(model.loss(batch)["ccop.regions"])
        first = objective.queue.keys("regions").clone()
        assert 10 < count < 20
        model.loss(batch)
        bank = objective.queue.keys("regions")
        past = 2 * count - 20  # positives beyond the end
        assert torch.equal(bank[past:count], first[past:count])
        assert torch.equal(bank[:past], first[:past]) == truncate
        assert objective.queue.state_dict()["state_regions"][0] == (0 if truncate else past)
        torch.testing.assert_close(bank[count:], bank[: 20 - count] if truncate else bank[count:])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_dropout_is_active_in_both_branches(dropout):
    """The same view twice, and a target that is a copy: without dropout query and key are one vector."""
    model, _, batch = setup(dropout=dropout, iou_threshold=1.1, kept=0.0)  # the region itself is the only candidate
    batch = batch._replace(views=[batch.views[0]] * 2, geometry=[batch.geometry[0]] * 2)
    batch = batch._replace(regions=pack_regions(unpacked(batch.regions, 4), batch.geometry))
    heads = [branch.projectors["ccop_regions"] for branch in (model.online, model.target.branch(model.online))]
    assert all(("dropout0" in dict(head.named_children())) == bool(dropout) and head.training for head in heads)
    outputs = [[], []]
    for head, seen in zip(heads, outputs):
        head.register_forward_hook(lambda _, inputs, output, seen=seen: seen.append((inputs[0], output)))
    figures = model.loss(batch)
    cosine = figures["ccop.positive_cosine"].item()
    if not dropout:
        assert cosine == pytest.approx(1)
        return
    assert cosine < 0.99
    for head, seen in zip(heads, outputs):  # each branch drops numbers anew
        inputs, output = max(seen, key=lambda item: len(item[0]))
        assert not torch.allclose(head(inputs), output)
        head.eval()
        assert torch.equal(head(inputs), head(inputs))


def test_the_image_term_has_the_same_head():
    model = toy_model([dict(type="MoCo", hidden=200, dim=8, length=4, dropout=0.1, init="normal")])
    head = model.online.projectors["moco_head"]
    assert [type(layer).__name__ for layer in head] == ["Linear", "Dropout", "ReLU", "Linear"]
    assert head.linear0.weight.std().item() == pytest.approx(0.01, rel=0.05) and not head.linear0.bias.any()
    plain = toy_model([dict(type="MoCo", hidden=200, dim=8, length=4)]).online.projectors["moco_head"]
    assert [type(layer).__name__ for layer in plain] == ["Linear", "ReLU", "Linear"]
    assert plain.linear0.weight.std().item() == pytest.approx((2 / 64) ** 0.5, rel=0.05)


def test_chunks_change_nothing():
    figures = []
    for chunk in (3, 1000):
        model, _, batch = setup(chunk=chunk)
        figures.append(model.loss(batch))
    for name, value in figures[0].items():
        torch.testing.assert_close(value, figures[1][name], rtol=1e-10, atol=1e-12)


def test_the_curriculum_counts_the_step_it_is_in():
    objective = CCOP(length=1)
    assert objective.curriculum(Step(4, HORIZON)) == pytest.approx((0.6, 0.375, 0.875))
    assert objective.curriculum(Step(9, HORIZON)) == pytest.approx((0.4, 0.6, 1.4))
    assert CCOP(length=1, iou_threshold=0.5, jitter_xy=0, jitter_wh=1.0).curriculum(Step(0)) == (0.5, 0, 1.0)
    model, _, batch = setup(iou_threshold=over_the_run(0.8, 0.4))
    assert model.loss(batch)["ccop.curriculum_iou"].item() == pytest.approx(0.76)


@pytest.mark.parametrize("steps", [1, 7, 369_600])
def test_the_curriculum_is_a_line_that_starts_one_step_on_the_way(steps):
    """The released code's formula, at every one of the run's steps but for the rounding of its last digit."""
    objective, horizon = CCOP(length=1), Horizon(steps / 10, 10, steps, 1, 1)
    pairs = ((0.8, 0.4), (0.15, 0.6), (0.35, 1.4))
    for index in {*range(min(steps, 1000)), *range(0, steps, 997), steps - 1}:
        expected = [start + (end - start) * (index + 1) / steps for start, end in pairs]
        assert objective.curriculum(Step(index, horizon)) == pytest.approx(expected, rel=4e-16, abs=0)


def test_a_pair_is_told_the_schedule_that_says_the_same():
    with pytest.raises(
        SettingError, match=r"ccop\.jitter_xy=\(0\.1, 0\.2\): .*'linear', 'start': 0\.1, 'end': 0\.2, 'lead': 1"
    ):
        CCOP(length=1, jitter_xy=[0.1, 0.2])


def test_between_images_against_loops():
    generator = torch.Generator().manual_seed(0)
    owner = torch.tensor([0, 0, 0, 2, 3, 3])
    q, k = (torch.rand(6, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    *padded, real = by_image(owner, 5, q, k)
    assert real.sum(1).tolist() == [3, 0, 1, 2, 0] and padded[0].shape == (5, 3, 5)
    pairs = [(q[i] @ k[j]).item() for i in range(6) for j in range(6) if owner[i] != owner[j]]
    assert between_images(*padded, real).item() == pytest.approx(sum(pairs) / len(pairs))


def no_regions(batch):
    """The batch with no region in any image."""
    samples = [
        SampleRegions(item.boxes[:0], item.levels[:0], {"jitter": item.draws["jitter"][:0]})
        for item in unpacked(batch.regions, len(batch.keys))
    ]
    return batch._replace(regions=pack_regions(samples, batch.geometry))


def all_lost(batch):
    """The batch with views that show other parts of their images."""
    return without_overlap(batch, [0, 1, 2, 3])


@pytest.mark.parametrize("empty", [no_regions, all_lost])
def test_without_regions_the_losses_are_zero_with_zero_gradient(empty):
    case = CASES["ccop"]
    model = toy_model(case.objectives[1:], dtype=torch.float64, neck=case.neck)
    bank = model.objectives["ccop"].queue.keys("regions").clone()
    figures = model.loss(empty(toy_batch(dtype=torch.float64, regions=case.regions)))
    assert all(torch.isfinite(value).all() for value in figures.values())
    assert figures["ccop.loss_region"] == figures["ccop.loss_intra"] == figures["ccop.regions"] == 0
    model.parse_losses(figures)[0].backward()
    trained = [p for p in model.online.parameters() if p.requires_grad]
    assert all(p.grad is not None and not p.grad.any() for p in trained)
    assert torch.equal(model.objectives["ccop"].queue.keys("regions"), bank)


def train_on_a_rank_without_regions():
    case, rank = CASES["ccop"], torch.distributed.get_rank()
    model = toy_model(case.objectives, dtype=torch.float64, neck=case.neck)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    batch = rows(lopsided(), torch.arange(rank, 8, 2))
    assert len(batch.regions.owner) > 0 if rank == 0 else len(batch.regions.owner) == 0
    figures = wrapped(*batch, mode="loss")
    model.parse_losses(figures)[0].backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: value.item() for name, value in figures.items()}, gradients, model.state_dict()


def lopsided():
    """Eight images, of which those of odd number, a rank's, have no regions."""
    batch = toy_batch(8, dtype=torch.float64, regions=CASES["ccop"].regions)
    samples = unpacked(batch.regions, 8)
    bare = unpacked(no_regions(batch).regions, 8)
    samples = [(bare if number % 2 else samples)[number] for number in range(8)]
    return batch._replace(regions=pack_regions(samples, batch.geometry))


def test_a_rank_without_regions_trains_along():
    case = CASES["ccop"]
    model = toy_model(case.objectives, dtype=torch.float64, neck=case.neck)
    figures = model.loss(lopsided())
    model.parse_losses(figures)[0].backward()
    found = run_pair(train_on_a_rank_without_regions)
    for name in ("ccop.loss_region", "ccop.loss_intra"):
        assert found[1][0][name] == 0
        assert found[0][0][name] / 2 == pytest.approx(figures[name].item())
    for _, gradients, state in found:
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-9, atol=1e-11)
        assert torch.equal(state["objectives.ccop.queue.state_regions"], model.objectives["ccop"].queue.state_regions)


def test_errors_name_the_key():
    with pytest.raises(
        ValueError, match=r"objectives.ccop: sizes=\(1, 2\) for levels=\(0,\), expected a number for each"
    ):
        CCOP(levels=(0,), sizes=(1, 2))
    with pytest.raises(ValueError, match=r"levels=\(0, 1\) have \[32, 64\] channels, expected one width"):
        toy_model([dict(ONE, levels=(0, 1), sizes=(1, 2))])
    with pytest.raises(
        ValueError, match=r"objectives.ccop.iou_threshold .*'lead': 1\} depends on the length of the run"
    ):
        CCOP(length=1).curriculum(Step(0))
    model, _, batch = setup()
    with pytest.raises(ValueError, match=r"objectives.ccop needs regions.*`regions` in the config"):
        model.loss(batch._replace(regions=None))
    for draws, found in (({}, r"\{\}"), ({"jitter": torch.zeros(16, 6)}, r"\{'jitter': 6\}")):
        with pytest.raises(ValueError, match=rf"regions.uniforms is {found}; objectives.ccop expects jitter=4"):
            model.loss(batch._replace(regions=batch.regions._replace(draws=draws)))
