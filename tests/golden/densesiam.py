"""Golden cases of DenseSiam's segmentation variant, by the official code (commit 99f8ce1)."""

import pytest
import torch
from torch import nn

from densessl.data.batch import Batch
from densessl.geometry import ViewGeometry, affine
from densessl.losses import soft_cross_entropy, unit
from densessl.model import TwoBranch
from densessl.objectives.densesiam_seg import hard_cross_entropy
from densessl.registry import MODELS, OBJECTIVES
from densessl.schedules import Horizon, Step
from tests.golden.case import Case

HEADS = {
    "projector": "online.projectors.seg_pixel",
    "predictor": "objectives.seg.predictors.pixel",
    "aux_projector": "online.projectors.seg_aux",
    "aux_predictor": "objectives.seg.predictors.aux",
    "kernel_projector": "online.projectors.seg_region",
    "kernel_predictor": "objectives.seg.region.predictor",
}
# Positions in an official head's Sequential, in which every third is a ReLU, and ours.
LAYERS = {"0": "linear0", "1": "norm0", "3": "linear1", "4": "norm1", "6": "linear2", "7": "norm2", "9": "linear3"}


@MODELS.register_module(force=True)
class GoldenFeatures(nn.Module):
    """Gives the images back: the cases begin at aligned features."""

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels, self.out_strides = (channels,), (1,)

    def forward(self, features):
        return (features,)


def densesiam(case: Case) -> None:
    features = [case[f"feats_v{view}"].double().requires_grad_() for view in (1, 2)]
    model, names = _model(case)
    seen = {head: [] for head in (*HEADS, "region")}
    for head, path in {**HEADS, "region": "objectives.seg.region"}.items():
        if path in dict(model.named_modules()):
            model.get_submodule(path).register_forward_hook(
                lambda _, args, out, found=seen[head]: found.append((*args, out))
            )
    images, _, height, width = features[0].shape
    whole = ViewGeometry.stack([(affine.identity(), (width, height), (width, height))] * images)
    figures = model.loss(Batch(features, [whole, whole], [{}, {}], torch.zeros(images, 2)))
    total, _ = model.parse_losses(figures)
    total.backward()
    # Batch norm over the few vectors of one image lifts the rounding of the file's numbers.
    rtol = 1e-4 if images > 1 else 1e-3

    z, p = ([out for _, out in seen[head]] for head in ("projector", "predictor"))
    for view in (0, 1):
        case.value(f"z{view + 1}", z[view], rtol)
        case.value(f"p{view + 1}", p[view], rtol)
    if seen["region"]:
        _compare_regions(case, seen, z[0].softmax(1), rtol)
    weights = model.objectives["seg"].term_weights
    losses = {
        "loss_simsiam": "loss_pixel",
        "loss_aux": "loss_aux",
        "loss_kernel_cross": "loss_region",
        "loss_seg": "loss_seg",
    }
    for official, name in losses.items():
        if official in case:
            case.value(official, figures.get(f"seg.{name}", torch.zeros(())), rtol)
    for official, name in {"pix": "pixel", "aux": "aux"}.items():
        if weights.get(name) and f"w_{official}" in case:
            case.value(f"w_{official}", weights[name])
        if weights.get(name) and f"loss_{name}_unweighted" in case:
            case.value(f"loss_{name}_unweighted", figures[f"seg.loss_{name}"] / weights[name], rtol)
    case.value("loss_total", total, rtol)
    _compare_gradients(case, model, names, features)


def _compare_regions(case: Case, seen: dict[str, list], masks: torch.Tensor, rtol: float) -> None:
    classes = case.hp("num_classes")
    vectors, projected = ([item[i].unflatten(0, (-1, classes)) for item in seen["kernel_projector"]] for i in (0, 1))
    predicted = projected
    if seen["kernel_predictor"]:
        predicted = [out.unflatten(0, (-1, classes)) for _, out in seen["kernel_predictor"]]
    s, u = ([unit(item, dim=2) for item in items] for items in (predicted, projected))
    expected = {
        "masks_v1": masks,
        "region_v1": vectors[0],
        "region_v2": vectors[1],
        "region_s1": s[0],
        "region_u2": u[1],
        "logits12": s[0] @ u[1].mT / case.hp("kernel_temp"),
        "logits21": s[1] @ u[0].mT / case.hp("kernel_temp"),
    }
    for name, value in expected.items():
        if name in case:
            case.value(name, value, rtol)
    if "loss_region_unweighted" in case:
        ((_, (rows, _)),) = seen["region"]
        case.value("loss_region_unweighted", rows.mean(), rtol)


def _compare_gradients(case: Case, model: TwoBranch, names: dict[str, str | None], features: list) -> None:
    for view in (1, 2):
        case.grad(f"grad_feats_v{view}", features[view - 1].grad)
    parameters = dict(model.named_parameters())
    for official in case.group("g/"):
        name, expected = names[official], case[f"g/{official}"]
        found = None if name is None else parameters[name].grad
        # A bias in front of a norm has no gradient but rounding, and here does not exist.
        like = f"g/{official.replace('.bias', '.weight')}" if name is None else None
        case.grad(f"g/{official}", torch.zeros_like(expected) if found is None else found, like)


def _model(case: Case) -> tuple[TwoBranch, dict[str, str | None]]:
    """The model with the file's weights, and our names of the official parameters (None for those left out)."""
    channels = case["feats_v1"].shape[1]
    has_regions = "p/kernel_projector.0.weight" in case
    objective = dict(
        type="DenseSiamSegmentation",
        name="seg",
        level=-1,
        hidden=channels,
        depth=case.hp("num_proj_convs"),
        classes=case.hp("num_classes"),
        aux_classes=max(case.hp("num_aux_classes"), 0),
        seg_weight=case.hp("loss_seg_weight"),
        rebalance=bool(case.hp("rebalance_seg")),
        # A weight that a schedule holds at 0 still has its heads, the number has not.
        region_weight=dict(type="constant", value=max(case.hp("loss_kernel_cross_weight"), 0)) if has_regions else 0,
        region_depth=case.hp("num_kernel_proj_convs"),
        region_predictor=bool(case.hp("kernel_with_pred")),
        region_last_norm=bool(case.hp("kernel_proj_final_bn")),
        temperature=case.hp("kernel_temp"),
    )
    model = TwoBranch(
        dict(backbone=dict(type="GoldenFeatures", channels=channels)), [objective], dict(kind="stop_gradient")
    ).double()
    model.begin(Horizon(1, 1, 1, 1, 1))
    own = dict(model.named_parameters())
    names = {}
    for official, value in case.group("p/").items():
        head, layer, kind = official.split(".")
        name = f"{HEADS[head]}.{LAYERS[layer]}.{kind}"
        names[official] = name if name in own else None
        assert name in own or (kind == "bias" and head.endswith("projector")), f"{official}: we have no {name}"
        if name in own:
            own[name].data.copy_(value)
    assert set(own) == set(names.values()) - {None}, "parameters that the file does not set"
    return model.train(), names


def densesiam_pixel(case: Case) -> None:
    z = case["z"]
    valid = torch.ones(len(z), *z.shape[2:], dtype=torch.bool)
    p = case["p"].requires_grad_()

    def compare(name, rows, grad):
        if f"{name}_map" in case:
            case.value(f"{name}_map", rows)
        case.value(f"{name}_loss", rows.mean())
        case.grad(grad, torch.autograd.grad(rows.mean(), p)[0])

    compare("soft", soft_cross_entropy(p, z.softmax(1), dim=1), "grad_soft")
    for number, rebalance in enumerate((False, True)):
        rows, _ = hard_cross_entropy(p, z.argmax(1), valid, rebalance)
        compare(f"hard{number}", rows, f"grad_hard{number}")
    rows, _ = hard_cross_entropy(p, p.detach().argmax(1), valid)
    compare("seg_self", rows, "grad_seg_self")


def densesiam_weights(case: Case) -> None:
    horizon = Horizon(steps_per_epoch=3, epochs=len(case["region_weight"]), total_steps=0, num_images=0, global_batch=0)
    steps, levels = case["hp_steps"].tolist(), [case.hp("base") * gamma for gamma in case["hp_gammas"].tolist()]
    # A change at a step, for each of the official steps but the last, which ends the run.
    changes = [dict(type="constant", value=levels[0])]
    for epoch, before, after in zip(steps, levels, levels[1:]):
        changes.append(dict(type="switch", before=0.0, after=after - before, at_epoch=epoch))
    objectives = [OBJECTIVES.build(dict(type="DenseSiamSegmentation", region_weight=change)) for change in changes]
    for epoch, expected in enumerate(case["region_weight"].tolist()):
        for step in (3 * epoch, 3 * epoch + 2):
            found = sum(objective.region_weight(Step(step, horizon)) for objective in objectives)
            assert found == pytest.approx(expected, abs=1e-9), epoch
    for (classes, aux), (w_aux, w_pixel) in zip(case["class_pairs"].tolist(), case["weights"].tolist()):
        objective = OBJECTIVES.build(dict(type="DenseSiamSegmentation", classes=classes, aux_classes=aux))
        assert objective.term_weights == pytest.approx({"pixel": w_pixel, "aux": w_aux}, rel=1e-9)
