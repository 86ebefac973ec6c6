"""Golden cases of DETReg, by the official code (commit a4b6363); and what they share with UP-DETR's.

Predictions given to the official criterion are given to the model here as what its head says. The official heads call
an object class 1 of many; here it is class 0, so channels 0 and 1 change places.
"""

import zlib
from collections.abc import Sequence
from unittest import mock

import numpy as np
import torch
from mmdet.models.layers import SinePositionalEncoding
from mmdet.models.task_modules.assigners import hungarian_assigner
from torch import Tensor, nn

from densessl.branches import build_backbone
from densessl.data import placed as P
from densessl.data.batch import Batch, Regions
from densessl.data.detection import cut_patches
from densessl.detectors import DetectorPretraining
from densessl.detectors.samples import data_samples
from densessl.geometry import ViewGeometry, affine
from densessl.preprocessor import RegionPreprocessor
from densessl.weights.detector.stock import pretraining_model, stock_model
from tests.golden.case import Case

DETR = "mmdet::detr/detr_r50_8xb2-150e_coco.py"
DEFORMABLE = "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"
# Official names of losses and MMDetection's.
LOSSES = {"loss_ce": "loss_cls", "loss_bbox": "loss_bbox", "loss_giou": "loss_iou"}
SIDE = 512  # of images, in pixels: a power of two, so that boxes come out of pixels as they went in


def detreg_crit_deformable(case: Case) -> None:
    costs = [dict(type="FocalLossCost", weight=2.0, eps=1e-8), *_box_costs()]
    _criterion(case, DEFORMABLE, {"backbone.out_indices": (1, 2, 3), "neck.in_channels": [128, 256, 512]}, 0, costs)


def detreg_crit_detr(case: Case) -> None:
    costs = [dict(type="ClassificationCost", weight=1.0), *_box_costs()]
    _criterion(case, DETR, {"neck.in_channels": [512]}, 1, costs)


def _criterion(case: Case, detector: str, options: dict, background: int, costs: list[dict]) -> None:
    teacher = dict(type="ResNet", depth=18, out_indices=(1,))
    weight = case["weight/loss_object_embedding"].item()
    pretext = dict(type="DETReg", teacher=teacher, weight=weight, allow_random_teacher=True)
    model = criterion(case, detector, pretext, {**options, "train_cfg.assigner.match_costs": costs}, background)
    model.pretext.embed = nn.Identity()
    model.pretext.teacher = lambda patches: patches  # they are embeddings already
    sizes = case["counts"].tolist()
    batch = region_batch(torch.zeros(len(sizes), 3, 8, 8), case["tgt_boxes"].split(sizes), case["tgt_embeddings"])
    features = case["features"].requires_grad_()
    label = case["tgt_labels"][0].item() if len(case["tgt_labels"]) else 1
    if "num_logits" in case:
        assert case["num_logits"] == case["logits"].shape[-1] == case["num_classes_arg"] + background
    compare(case, model, batch, features.expand(len(case["logits"]), -1, -1, -1), label, last=[features])


def criterion(case: Case, detector: str, pretext: dict, options: dict, background: int) -> DetectorPretraining:
    """A small detector whose losses have the numbers and weights of the case."""
    layers, _, queries, logits = case["logits"].shape
    options = {
        "encoder.num_layers": 1,
        "decoder.num_layers": layers,
        "num_queries": queries,
        "backbone.depth": 18,
        "bbox_head.num_classes": logits - background,
        **{f"bbox_head.{ours}.loss_weight": case[f"weight/{name}"].item() for name, ours in LOSSES.items()},
        **options,
    }
    return DetectorPretraining(detector, pretext, options).train()


def compare(
    case: Case, model: DetectorPretraining, batch: Batch, states: Tensor, label: int, last: Sequence[Tensor]
) -> None:
    """Matches, losses and gradients of the case's logits and boxes, and of ``last``: of what the ``features`` are."""
    logits, boxes = case["logits"].requires_grad_(), case["boxes"].requires_grad_()
    channels = torch.arange(logits.shape[-1])
    channels[[0, label]] = channels[[label, 0]]
    model.detector.bbox_head.forward = lambda *_: (logits[..., channels], boxes)
    asked = ("references", "enc_outputs_class", "enc_outputs_coord")
    references = {} if model.config["type"] == "DETR" else dict.fromkeys(asked)
    found, take = [], model.assigner.take
    model.assigner.take = lambda *sizes: found.append(take(*sizes)) or found[-1]
    solve = hungarian_assigner.linear_sum_assignment
    with mock.patch.object(hungarian_assigner, "linear_sum_assignment", wraps=solve) as solved:
        losses = model.judge({"hidden_states": states, **references}, data_samples(batch), batch)
    costs = iter(solved.call_args_list)  # none for images without regions
    for number, layer in enumerate(found[0]):
        for image, match in enumerate(layer):
            if f"cost/l{number}_b{image}" in case and case[f"cost/l{number}_b{image}"].numel():
                case.value(f"cost/l{number}_b{image}", next(costs).args[0], 1e-4, 1e-4)
            case.exact(f"match_src/l{number}_b{image}", match.queries)
            case.exact(f"match_tgt/l{number}_b{image}", match.targets)
    compare_losses(case, losses)
    total, _ = model.parse_losses(losses)
    inputs = [logits, boxes, *last]
    for name, gradient in zip(("logits", "boxes", "features"), torch.autograd.grad(total, inputs, retain_graph=True)):
        close(case, f"grad_{name}", gradient)
    for name in case.group("grad_loss_"):
        loss, given = name.removesuffix("_lastlayer").rsplit("_", 1)
        of = dict(zip(("logits", "boxes", "features"), inputs))[given]
        (gradient,) = torch.autograd.grad(_ours(losses, f"loss_{loss}"), of, retain_graph=True)
        expected = case[f"grad_loss_{name}"]
        weight = case[f"weight/loss_{loss}"].item()
        close(case, f"grad_loss_{name}", (gradient[-1] if gradient.ndim > expected.ndim else gradient) / weight)


def compare_losses(case: Case, losses: dict[str, Tensor]) -> None:
    """Every loss of the case, and their sum. Official means of no pairs are not finite; here they are zero."""
    weights = {name: value.item() for name, value in case.group("weight/").items()}
    for name in case.group("loss/"):
        if not name.startswith("loss_"):  # figures that the official code logs
            case.informative(f"loss/{name}")
        else:
            ours = _ours(losses, name)
            if case[f"loss/{name}"].isfinite():
                case.value(f"loss/{name}", ours / weights.get(name, WEIGHTS.get(_split(name)[0], 1.0)), 1e-5, 1e-6)
            assert ours.isfinite()
    total = sum(value for name, value in losses.items() if "loss" in name)
    if case["total"].isfinite():
        case.value("total", total, 1e-5, 1e-6)


WEIGHTS = {"loss_bbox": 5.0, "loss_giou": 2.0}  # where a case does not say


def _split(name: str) -> tuple[str, str]:
    """An official loss's name without the number of its layer, and MMDetection's prefix for that layer."""
    head, _, tail = name.rpartition("_")
    return (head, f"d{tail}.") if tail.isdigit() else (name, "")


def _ours(losses: dict[str, Tensor], official: str) -> Tensor:
    name, layer = _split(official)
    if name == "loss_object_embedding":
        return losses["pretext.loss_embed"]
    return losses[f"detector.{layer}{LOSSES[name]}" if name in LOSSES else f"pretext.{layer}{name}"]


def close(case: Case, name: str, actual: Tensor) -> None:
    """A gradient, to 1e-5 of the largest; those of normalised zeros, some 1e10, only to so much of themselves."""
    expected = case[name]
    usual = expected[expected.abs() < 1e6].abs()
    case.value(name, actual, 1e-5, 1e-5 * (usual.max().item() if len(usual) else 0.0) + 1e-9)


def region_batch(
    views: Tensor, boxes: Sequence[Tensor], patches: Tensor, sizes: Sequence[tuple[int, int]] | None = None
) -> Batch:
    """A batch of images of (width, height) ``sizes``, their boxes (K, 4) given as centres and sides, relative."""
    sizes = torch.tensor(sizes or [(SIDE, SIDE)] * len(boxes), dtype=torch.float64)
    geometry = ViewGeometry(torch.from_numpy(affine.identity()).expand(len(sizes), -1, -1), sizes, sizes)
    owner = torch.repeat_interleave(torch.arange(len(boxes)), torch.tensor([len(own) for own in boxes]))
    relative = torch.cat(list(boxes)).double()
    corners = torch.cat([relative[:, :2] - relative[:, 2:] / 2, relative[:, :2] + relative[:, 2:] / 2], 1)
    pixels = corners * sizes[owner].repeat(1, 2)
    kept = torch.ones(len(owner), dtype=torch.float64)
    regions = Regions(
        [pixels], [kept], pixels, torch.ones_like(owner), owner, {"photometric": torch.zeros(len(owner), 0)}, patches
    )
    return Batch([views], [geometry], [{}], torch.zeros(len(boxes), 2, dtype=torch.int64), regions)


def _box_costs() -> list[dict]:
    return [
        dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
        dict(type="IoUCost", iou_mode="giou", weight=2.0),
    ]


def detreg_posenc(case: Case) -> None:
    options = {"positional_encoding.num_feats": case["num_feats"].item()}
    if "offset" in case:
        options["positional_encoding.offset"] = case["offset"].item()
    config = pretraining_model(stock_model(DETR), options)["positional_encoding"]
    found = SinePositionalEncoding(**config)(case["mask"])
    valid = (case["mask"] == 0)[:, None].expand_as(found)
    torch.testing.assert_close(found[valid], case["pos"][valid], rtol=1e-5, atol=1e-5)


updetr_posenc = detreg_posenc


def detreg_embedding(case: Case) -> None:
    from densessl.detectors.teacher import Teacher

    config = dict(type="ResNet", depth=50, out_indices=(1,))
    teacher = Teacher(config, allow_random=True)
    seed = case["weight_seed"].item()
    teacher.network.load_state_dict(
        {name: _recipe(name, value, seed) for name, value in build_backbone(config).state_dict().items()}
    )
    case.exact("conv1_weight_head", teacher.network.state_dict()["conv1.weight"][:2])
    image = case["image"].numpy()
    placed = P.Placed(image, affine.identity(), image.shape[1::-1])
    cut = cut_patches(placed, case["boxes_xyxy"].double().numpy(), 128, "pil")
    count = len(cut)
    batch = region_batch(torch.zeros(1, 3, 8, 8), [torch.zeros(count, 4)], torch.from_numpy(cut).permute(0, 3, 1, 2))
    patches = RegionPreprocessor()(batch).regions.patches
    case.value("patches_sub", patches[:, :, ::8, ::8], 1e-5, 1e-5)
    case.informative("layer4_gap")  # of another layer: what the embedding is not
    case.value("embedding", teacher(patches), 1e-5, 1e-5 * case["embedding"].abs().max().item())


def _recipe(name: str, like: Tensor, seed: int) -> Tensor:
    """The weights that the case was made with."""
    random = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF)
    shape = tuple(like.shape)
    if like.ndim == 4:
        value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        value = 0.75 + 0.5 * random.random_sample(shape)
    elif like.ndim:
        value = 0.1 * random.standard_normal(shape)
    else:
        return like
    return torch.from_numpy(value.astype(np.float32))
