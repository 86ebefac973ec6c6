"""Pair DETR: its losses against loops, what it trains, and what it shares with Conditional DETR."""

import math
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import nn

from densessl.configs import load_config
from densessl.detectors.pair import pair_contrast
from densessl.weights.detector.stock import build

CONFIG = str(Path(__file__).parents[2] / "configs/transfer/coco/pair-detr_r50_50e.py")
OWN = ("decoder_tl.", "bbox_head.tl_reg_ffn.", "bbox_head.tl_fc_reg.", "bbox_head.con_proj.")


def small(name: str = CONFIG, seed: int = 0) -> nn.Module:
    """One encoder and two decoder layers on a ResNet-18, without dropout."""
    torch.manual_seed(seed)
    config = load_config(name).model.to_dict()
    config.pop("data_preprocessor")
    config["num_queries"] = 12
    config["encoder"]["num_layers"], config["decoder"]["num_layers"] = 1, 2
    config["backbone"].update(depth=18, init_cfg=None)
    config["neck"]["in_channels"] = [512]
    model = build(config)
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.MultiheadAttention):
            setattr(module, "p" if isinstance(module, nn.Dropout) else "dropout", 0.0)
    return model


def images(*counts: int, size: tuple[int, int] = (64, 96), seed: int = 0):
    """Noise, and so many random boxes in each image."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    samples = []
    for count in counts:
        near, far = (torch.rand(count, 2, generator=generator) for _ in range(2))
        boxes = torch.cat([0.45 * near, 0.5 + 0.45 * far], 1) * torch.tensor([width, height] * 2)
        sample = DetDataSample(
            metainfo=dict(img_shape=size, batch_input_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        )
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.arange(count))
        samples.append(sample)
    return torch.randn(len(counts), 3, height, width, generator=generator), samples


def test_association_equals_a_loop():
    generator = torch.Generator().manual_seed(0)
    centre, corner = (torch.randn(2, 5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    terms = []
    for image in range(2):
        vectors = [v / v.norm() for v in [*centre[image], *corner[image]]]
        for i, anchor in enumerate(vectors):
            scores = {k: math.exp(float(anchor @ other) / 0.3) for k, other in enumerate(vectors) if k != i}
            terms.append(-math.log(scores[(i + 5) % 10] / sum(scores.values())))
    found = pair_contrast(centre, corner, 0.3)
    assert found.dtype == torch.float64 and float(found) == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    assert pair_contrast(centre, centre, 0.1) < pair_contrast(centre, corner, 0.1)


def test_corners_have_the_assignment_of_the_boxes():
    """Against a loop with the head's assigner, asked once more for the last layer."""
    model = small().train()
    inputs, samples = images(2, 3)
    head = model.bbox_head
    with torch.no_grad():
        asked = model.forward_transformer(model.extract_feat(inputs), samples)
        losses = head.loss(**asked, batch_data_samples=samples)
        scores, boxes = head(asked["hidden_states"], asked["references"])
        points = head.corners(asked["corner_states"][-1], asked["corner_references"])
    total = 0.0
    for image, sample in enumerate(samples):
        centre, sides = boxes[-1, image].split(2, 1)
        scale = torch.tensor([96.0, 64.0, 96.0, 64.0])
        pixels = torch.cat([centre - sides / 2, centre + sides / 2], 1) * scale
        predicted = InstanceData(scores=scores[-1, image], bboxes=pixels)
        given = head.assigner.assign(predicted, sample.gt_instances, sample.metainfo).gt_inds
        for query, box in enumerate(given.tolist()):
            if box > 0:
                left, top = sample.gt_instances.bboxes[box - 1, :2].tolist()
                x, y = points[image, query].tolist()
                total += abs(x - left / 96) + abs(y - top / 64)
    assert float(losses["loss_corner"]) == pytest.approx(5 * total / 5, rel=1e-4)
    wanted = {f"{prefix}loss_{name}" for prefix in ("", "d0.") for name in ("cls", "bbox", "iou", "corner", "pair")}
    assert losses.keys() == wanted


@pytest.mark.parametrize("counts", [(2, 1), (0, 0)])
def test_a_step_trains_every_part(counts):
    model = small().train()
    inputs, samples = images(*counts)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    totals = []
    for _ in range(3):
        losses = model.loss(inputs, samples)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        optimizer.step()
        totals.append(total.item())
    assert all(math.isfinite(value) for value in totals) and totals[-1] < totals[0]
    assert not model.bbox_head.assigner.matches


def test_conditional_detr_takes_its_weights_and_predicts_the_same():
    pair = small(seed=1).eval()
    stock = small("mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py", seed=2).eval()
    loaded = stock.load_state_dict(pair.state_dict(), strict=False)
    assert not loaded.missing_keys and loaded.unexpected_keys
    assert all(name.startswith(OWN) for name in loaded.unexpected_keys)
    assert {own for own in OWN if any(n.startswith(own) for n in loaded.unexpected_keys)} == set(OWN)
    with torch.no_grad():
        found, wanted = (model.predict(*images(1, 1)) for model in (pair, stock))
    for a, b in zip((sample.pred_instances for sample in found), (sample.pred_instances for sample in wanted)):
        assert torch.equal(a.bboxes, b.bboxes) and torch.equal(a.scores, b.scores)
    back = small(seed=3).load_state_dict(stock.state_dict(), strict=False)
    assert not back.unexpected_keys and all(name.startswith(OWN) for name in back.missing_keys)
