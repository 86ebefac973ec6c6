"""Losses and matches against loops in float64, in every state they meet in training."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scipy.optimize import linear_sum_assignment

from densessl.data.batch import Batch
from densessl.detectors.detreg import embedding_loss
from densessl.detectors.matches import Match, RecordingAssigner, per_region
from densessl.detectors.samples import data_samples
from densessl.detectors.updetr import query_groups, reconstruction
from tests.detectors.small import DETREG, FAMILIES, random_batch, random_boxes, small
from tests.distributed import run_pair
from tests.golden.detreg import region_batch

# MMDetection adds fp32's epsilon to what it divides by.
EPSILON = 2e-7
COUNTS = [(3, 5), (4, 0), (9, 2), (0, 0)]  # of six queries: some for all, for none, too few


def _giou(a, b):
    (ax, ay, aw, ah), (bx, by, bw, bh) = a, b
    wide = min(ax + aw / 2, bx + bw / 2) - max(ax - aw / 2, bx - bw / 2)
    high = min(ay + ah / 2, by + bh / 2) - max(ay - ah / 2, by - bh / 2)
    shared = max(0.0, wide) * max(0.0, high)
    union = aw * ah + bw * bh - shared
    hull_w = max(ax + aw / 2, bx + bw / 2) - min(ax - aw / 2, bx - bw / 2)
    hull_h = max(ay + ah / 2, by + bh / 2) - min(ay - ah / 2, by - bh / 2)
    return shared / union - (hull_w * hull_h - union) / (hull_w * hull_h)


def _l1(a, b):
    return sum(abs(x - y) for x, y in zip(a, b))


def _softmax(logits, channel):
    return math.exp(logits[channel]) / sum(math.exp(value) for value in logits)


def _focal(logit, positive):
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if positive else -0.75 * p**2 * math.log(1 - p)


def _oracle(logits, boxes, targets, softmax):
    """Matches and unweighted losses of one layer; logits (N, Q, 1 + softmax), boxes (N, Q, 4), targets N lists."""
    regions = max(1, sum(len(own) for own in targets))
    pairs, l1, giou, cls, weight = [], 0.0, 0.0, 0.0, 0.0
    for own_logits, own_boxes, own_targets in zip(logits, boxes, targets):
        cost = np.zeros((len(own_logits), len(own_targets)))
        for q, (logit, box) in enumerate(zip(own_logits, own_boxes)):
            of_class = -_softmax(logit, 0) if softmax else 2 * (_focal(logit[0], True) - _focal(logit[0], False))
            for t, target in enumerate(own_targets):
                cost[q, t] = of_class + 5 * _l1(box, target) - 2 * _giou(box, target)
        found = dict(zip(*linear_sum_assignment(cost))) if own_targets else {}
        pairs.append(found)
        for q, logit in enumerate(own_logits):
            if q in found:
                l1 += _l1(own_boxes[q], own_targets[found[q]]) / regions
                giou += (1 - _giou(own_boxes[q], own_targets[found[q]])) / regions
            if softmax:
                factor = 1.0 if q in found else 0.1
                cls -= factor * math.log(_softmax(logit, 0 if q in found else 1))
                weight += factor
            else:
                cls += _focal(logit[0], q in found) / regions
    return pairs, {"loss_cls": cls / max(weight, 1) if softmax else cls, "loss_bbox": l1, "loss_iou": giou}


@pytest.fixture(scope="module", params=["detr", "deformable"])
def judge(request):
    model = small(request.param, DETREG)
    model.pretext.embed, model.pretext.teacher = torch.nn.Identity(), lambda patches: patches
    return model


@pytest.mark.parametrize("counts", COUNTS)
def test_losses_and_matches_are_those_of_loops(judge, counts):
    generator = torch.Generator().manual_seed(sum(counts))
    layers, queries, softmax = 2, 6, judge.config["type"] == "DETR"
    targets = [random_boxes(count, generator).double() for count in counts]
    embeddings = torch.randn(sum(counts), 5, generator=generator, dtype=torch.float64)
    batch = region_batch(torch.zeros(2, 3, 8, 8, dtype=torch.float64), targets, embeddings, [(40, 64), (64, 48)])
    logits = torch.randn(layers, 2, queries, 1 + softmax, generator=generator, dtype=torch.float64)
    boxes = torch.stack([random_boxes(2 * queries, generator).double().unflatten(0, (2, queries)) for _ in range(2)])
    states = torch.randn(layers, 2, queries, 5, generator=generator, dtype=torch.float64)
    losses = _judged(judge, logits, boxes, states, batch)
    for layer, prefix in enumerate(("d0.", "")):
        pairs, expected = _oracle(*(x[layer].tolist() for x in (logits, boxes)), [t.tolist() for t in targets], softmax)
        weights = dict(loss_cls=1.0 if softmax else 2.0, loss_bbox=5.0, loss_iou=2.0)
        for name, value in expected.items():
            found = losses[f"detector.{prefix}{name}"].item()
            assert found == pytest.approx(weights[name] * value, rel=EPSILON, abs=1e-12), (prefix, name)
    errors, first = [], 0
    for image, count in enumerate(counts):
        for query, target in pairs[image].items():
            errors.append((states[-1, image, query] - embeddings[first + target]).abs().mean().item())
        first += count
    assert losses["pretext.loss_embed"].item() == pytest.approx(np.mean(errors) if errors else 0.0, rel=1e-9)
    matched = sum(min(count, queries) for count in counts)
    assert losses["matched"].item() == pytest.approx(matched / sum(counts) if sum(counts) else 1.0)
    assert losses["regions"].item() == sum(counts) / 2


def _judged(model, logits, boxes, states, batch: Batch) -> dict:
    model.detector.bbox_head.forward = lambda *_: (logits, boxes)
    asked = () if logits.shape[-1] == 2 else ("references", "enc_outputs_class", "enc_outputs_coord")
    return model.judge({"hidden_states": states, **dict.fromkeys(asked)}, data_samples(batch), batch)


def test_reconstruction_is_that_of_loops():
    torch.manual_seed(0)
    layers, queries, patches = 2, 6, 3
    model = small("detr", dict(type="UPDETR", reconstruct=2.0), num_queries=queries).double()
    model.pretext.align = torch.nn.Identity()
    batch = random_batch([patches, patches], dtype=torch.float64)
    logits, states = torch.randn(layers, 2, queries, 2).double(), torch.randn(layers, 2, queries, 5).double()
    boxes = torch.rand(layers, 2, queries, 4).double() * 0.5 + 0.2
    features = torch.randn(2 * patches, 5).double()
    model.pretext.features, model.pretext.groups = features, query_groups(queries, patches)
    relative = batch.regions.boxes[0] / 64
    targets = torch.cat([(relative[:, :2] + relative[:, 2:]) / 2, relative[:, 2:] - relative[:, :2]], 1)
    losses = _judged(model, logits, boxes, states, batch)
    for layer, prefix in enumerate(("d0.", "")):
        pairs, _ = _oracle(logits[layer].tolist(), boxes[layer].tolist(), targets.unflatten(0, (2, -1)).tolist(), True)
        total, own = 0.0, 0
        for image in range(2):
            for query, target in pairs[image].items():
                said, wanted = states[layer, image, query], features[image * patches + target]
                total += (said / said.norm() - wanted / wanted.norm()).square().sum().item()
                own += query // 2 == target
        assert losses[f"pretext.{prefix}loss_feature"].item() == pytest.approx(2 * total / (2 * patches), rel=1e-9)
    assert losses["pretext.own_patch"].item() == pytest.approx(own / (2 * patches))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return small(request.param, DETREG)


@pytest.mark.parametrize("counts", [(0, 0), (5, 1)])
def test_every_parameter_gets_a_gradient(model, counts):
    model.zero_grad()
    total, _ = model.parse_losses(model.loss(random_batch(counts)))
    total.backward()
    assert total.isfinite()
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not [name for name, gradient in trained.items() if gradient is None]
    assert all(gradient.isfinite().all() for gradient in trained.values())
    assert bool(trained["pretext.embed.linear1.weight"].any()) is (counts != (0, 0))


def test_losses_under_autocast_are_those_without():
    """Of the same decoder's outputs: head and losses stay in fp32."""
    model, batch = small("deformable", DETREG), random_batch([4, 2])
    samples = data_samples(batch)
    with torch.no_grad():
        inputs = model.transform(model.detector.extract_feat(batch.views[0]), samples, batch)
        exact = model.judge(inputs, samples, batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = model.judge(inputs, samples, batch)
    for name, value in found.items():
        assert value.dtype == torch.float32, name
        if name.startswith("detector."):
            assert torch.equal(value, exact[name]), name
    assert found["pretext.loss_embed"].item() == pytest.approx(exact["pretext.loss_embed"].item(), rel=1e-2)


def test_whole_steps_under_autocast(model):
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(random_batch([4, 2]))
        assert model.pretext.teacher(random_batch([4]).regions.patches).dtype == torch.float32
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())


def test_pairs_of_bf16_are_compared_in_fp32():
    predicted, target = (torch.randn(50, 64).bfloat16() for _ in range(2))
    exact = (predicted.double() / predicted.double().norm(dim=1, keepdim=True)) - (
        target.double() / target.double().norm(dim=1, keepdim=True)
    )
    assert reconstruction(predicted, target).item() == pytest.approx(exact.square().sum().item(), rel=1e-6)
    assert not embedding_loss(predicted[:0].float(), target[:0].float())


def test_a_pretext_sees_no_denoising_query():
    """DINO's decoder puts them first; matches count from the first query that detects."""
    model, batch = small("dino", DETREG), random_batch([3, 2])
    seen, losses = [], model.pretext.losses
    model.pretext.losses = lambda states, *rest: seen.append(states) or losses(states, *rest)
    samples = data_samples(batch)
    inputs = model.transform(model.detector.extract_feat(batch.views[0]), samples, batch)
    model.judge(inputs, samples, batch)
    whole, (states,) = inputs["hidden_states"], seen
    assert whole[0].shape[1] > 20 == model.detector.num_queries
    assert len(states) == len(whole)
    assert all(torch.equal(state, layer[:, -20:]) for state, layer in zip(states, whole))


def test_only_what_has_too_few_queries_is_divided_by_regions():
    names = ["loss_cls", "d0.loss_iou", "d3.loss_bbox", "enc_loss_cls", "dn_loss_cls", "d0.dn_loss_iou"]
    losses = {name: torch.tensor(6.0) for name in names}
    last = [Match(torch.arange(2), torch.arange(2)), Match(torch.arange(1), torch.arange(1))]
    scaled, share = per_region(losses, last, 6, softmax=False)
    assert share == 0.5 and [value.item() for value in scaled.values()] == [3, 3, 3, 6, 6, 6]
    assert per_region(losses, last, 6, softmax=True)[0]["loss_cls"] == 6
    assert per_region(losses, last, 3, softmax=False)[0] == losses


def test_the_decoder_has_its_matches_before_the_encoder():
    model = small("two_stage", DETREG)
    taken, take = [], RecordingAssigner.take
    model.assigner.take = lambda *sizes: taken.append(take(model.assigner, *sizes)) or taken[-1]
    model.loss(random_batch([3, 2]))
    assert [[len(match.queries) for match in layer] for layer in taken[0]] == [[3, 2], [3, 2]]
    assert all(match.queries.max() < 20 for layer in taken[0] for match in layer)  # the encoder has more cells
    assert not model.assigner.matches


def test_too_few_assignments_are_told():
    with pytest.raises(RuntimeError, match="0 times"):
        RecordingAssigner(None).take(2, 3)


def _model(family: str, pretext: str):
    options = {"bbox_head.sync_cls_avg_factor": True}  # else the mean of DETR's softmax is each rank's own
    model = small(family, DETREG if pretext == "detreg" else dict(type="UPDETR", drop=0.0), **options).double()
    if pretext == "detreg":
        model.pretext.teacher.network.double()
    return model


def _rows(batch: Batch, image: int) -> Batch:
    regions = batch.regions.index(batch.regions.owner == image)
    regions = regions._replace(owner=torch.zeros_like(regions.owner))
    geometry = batch.geometry[0].index(torch.tensor([image]))
    return Batch([batch.views[0][image : image + 1]], [geometry], [{}], batch.keys[image : image + 1], regions)


def _step(family: str, pretext: str, counts: tuple[int, int], split: bool) -> tuple[float, dict]:
    model, batch = _model(family, pretext), random_batch(counts, dtype=torch.float64)
    if split:
        batch = _rows(batch, dist.get_rank())
    total, _ = model.parse_losses(model.loss(batch))
    total.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    for value in (total.detach(), *gradients.values()) if split else ():
        dist.all_reduce(value)
        value /= dist.get_world_size()
    return total.item(), gradients


def split_step(family: str, pretext: str, counts: tuple[int, int]) -> tuple[float, dict]:
    return _step(family, pretext, counts, split=True)


@pytest.mark.parametrize(
    ("family", "pretext", "counts"),
    [
        ("deformable", "detreg", (22, 0)),  # more regions than queries, and a rank without any
        ("detr", "updetr", (3, 3)),
    ],
)
def test_two_processes_are_one(family, pretext, counts):
    total, gradients = _step(family, pretext, counts, split=False)
    for other, found in run_pair(split_step, family, pretext, counts):
        assert other == pytest.approx(total, rel=EPSILON)
        for name, value in gradients.items():
            torch.testing.assert_close(
                found[name], value, rtol=EPSILON, atol=EPSILON * value.abs().max().item() + 1e-12
            )
