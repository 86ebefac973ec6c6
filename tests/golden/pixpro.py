"""Golden cases of the PixPro family, by the official code (commit e390d6b)."""

import numpy as np
import torch
from torch import nn

from densessl import geometry as G
from densessl.branches.propagation import PixelPropagation
from densessl.data import placed as P
from densessl.data.batch import Batch
from densessl.data.views import CropDraw, ViewSpec, cut_view
from densessl.geometry import affine
from densessl.losses import pixel_consistency, pixel_propagation, unit
from densessl.model import TwoBranch
from densessl.registry import MODELS
from densessl.schedules import Horizon, fractional_total
from tests.golden.case import Case
from tests.golden.encoder import record

# The maps of the first step that files have, and the modules they come from.
HEADS = {
    "proj": "online.projectors.pixpro_projector",
    "pred": "objectives.pixpro.predictor",
    "target": "target.projectors.pixpro_projector",
}
# Official names of an MLP2d's parts and ours.
MLP_KEYS = {"linear1": "linear0", "bn1": "norm0", "linear2": "linear1"}


def pixpro_coord(case: Case) -> None:
    size = case.hp("size")
    for row, ((width, height), (top, left, h, w), flips) in enumerate(
        zip(case["image_wh"].tolist(), case["crop_ijhw"].tolist(), case["flips"].tolist())
    ):
        maps = [affine.crop(left, top), affine.resize((w, h), (size, size))]
        maps += [affine.hflip(size)] * flips[0] + [affine.vflip(size)] * flips[1]
        view = G.ViewGeometry.stack([(affine.compose(*maps), (size, size), (width, height))])
        coords = G.frame_to_coords(G.pixpro_frame(view))[0]
        torch.testing.assert_close(coords.float(), case["coord"][row], rtol=1e-6, atol=1e-7)
    number = 0
    while f"img{number}_src" in case:
        row = case[f"img{number}_row"].item()
        source = case[f"img{number}_src"].numpy()
        top, left, h, w = case["crop_ijhw"][row].tolist()
        draw = CropDraw(left, top, w, h, *map(bool, case["flips"][row].tolist()), 0.0)
        image = P.Placed(source, affine.identity(), source.shape[1::-1])
        view = cut_view(image, draw, ViewSpec(size=size), resample="pil")
        case.exact(f"img{number}_out", view.image.copy())
        geometry = G.ViewGeometry.stack([(view.to_source, view.size, view.source_size)])
        coords = G.frame_to_coords(G.pixpro_frame(geometry))[0]
        torch.testing.assert_close(coords.float(), case["coord"][row], rtol=1e-6, atol=1e-7)
        number += 1
    assert number


def pixpro_regression_loss(case: Case) -> None:
    q, k = (case[name].requires_grad_() for name in "qk")
    frames = [G.coords_to_frame(case[f"coord_{name}"]) for name in "qk"]
    grids = [tuple(item.shape[2:]) for item in (q, k)]
    mask = G.distance_mask(*frames, *grids, threshold=case.hp("pos_ratio"))
    similarity, count = pixel_consistency(q, k, mask)
    loss = -2 * similarity.mean()
    loss.backward()
    case.value("dist_center", G.cell_distances(*frames, *grids))
    case.exact("pos_mask", mask)
    assert count.tolist() == case["pos_mask"].flatten(1).sum(1).tolist()
    case.value("loss_per_image", similarity)
    case.value("loss", loss)
    case.grad("grad_q", q.grad)
    case.grad("grad_k", k.grad)
    case.informative("mask_margin")


def pixpro_featprop(case: Case) -> None:
    feat = case["feat"].requires_grad_()
    layers = case.hp("transform_layer")
    hidden = len(case["vt_linear1.weight"]) if layers == 2 else None
    module = PixelPropagation(feat.shape[1], layers, case.hp("p"), case.hp("clamp"), hidden=hidden)
    if layers:
        module.load_state_dict({f"transform.{_renamed(k)}": v for k, v in case.group("vt_").items()}, strict=False)
    out = module(feat)
    (out * case["upstream"]).sum().backward()
    case.value("out", out)
    case.grad("grad_feat", feat.grad)
    gradients = {f"transform.{_renamed(name)}": name for name in case.group("grad_vt_")}
    for name, parameter in module.named_parameters():
        official = f"grad_vt_{gradients[name]}"
        case.grad(official, parameter.grad, _noise_like(official))
    # The attention itself, by propagating an orthonormal basis instead of features.
    cells = feat[0, 0].numel()
    basis = torch.eye(cells).expand(len(feat), -1, -1).unflatten(2, feat.shape[2:])
    attention = pixel_propagation(feat, basis, case.hp("p"), case.hp("clamp")).flatten(2).mT
    case.value("attention", attention)


@MODELS.register_module(force=True)
class GoldenEncoder(nn.Module):
    """relu(conv2(relu(bn1(conv1(x))))), the tiny encoder the case was made with."""

    def __init__(self, widths: tuple[int, int]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 2, 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.conv2 = nn.Conv2d(*widths, 3, 2, 1)
        self.out_channels = (widths[1],)

    def forward(self, x):
        return (self.conv2(self.bn1(self.conv1(x)).relu()).relu(),)


def pixpro_full(case: Case) -> None:
    steps, images = case["im_1"].shape[:2]
    total = fractional_total(case.hp("num_instances"), 1, images, case.hp("epochs"))
    case.exact("K", total)
    horizon = Horizon(1, case.hp("epochs"), total, case.hp("num_instances"), images)
    model, names = _model(case)
    model.begin(horizon)
    model.train()
    model.load_state_dict({names[k]: v for k, v in case.group("p0/").items()}, strict=False)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=case.hp("lr"))
    heads = {name: record(model.get_submodule(path)) for name, path in HEADS.items()}
    for step in range(steps):
        batch = Batch(
            [case["im_1"][step], case["im_2"][step]],
            [_geometry(case[f"coord{v}"][step]) for v in (1, 2)],
            [{}, {}],
            torch.zeros(images, 2),
        )
        losses = model.loss(batch)
        loss, _ = model.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        torch.testing.assert_close(loss.double(), case["loss"][step], rtol=1e-4, atol=1e-5)
        assert abs(losses["target_momentum"].item() - case["momentum_used"][step].item()) < 1e-6
        if step == 0:
            if "loss_instance" in case:
                case.value("loss_instance", losses["instancecosine.loss"] / case.hp("ins_loss_weight"))
            _compare_first_step(case, model, names)
            if "proj_1" in case:
                _compare_maps(case, model, batch, heads)
        optimizer.step()
        model.advance()
    state = model.state_dict()
    for name in case.group("pT/"):
        case.value(f"pT/{name}", state[names[name]])


def _compare_maps(case: Case, model: TwoBranch, batch: Batch, heads: dict[str, list[torch.Tensor]]) -> None:
    """Projections, predictions, masks, and the two directed losses of the first step."""
    first, second = (unit(item) for item in heads["pred"][:2])
    targets = [unit(item) for item in heads["target"][:2]]
    masks = model.objectives["pixpro"].masks(batch.geometry, targets)
    for view in (0, 1):
        case.value(f"proj_{view + 1}", heads["proj"][view])
        case.grad(f"grad_proj_{view + 1}", heads["proj"][view].grad)
        case.value(f"pred_{view + 1}", (first, second)[view])
        case.value(f"proj_{view + 1}_ng", targets[view])
        case.exact(f"mask_{view + 1}{2 - view}", masks[view])
    pairs = ((first, targets[1], masks[0]), (second, targets[0], masks[1]))
    case.value("dir_losses", torch.stack([-2 * pixel_consistency(*pair)[0].mean() for pair in pairs]))


def _compare_first_step(case: Case, model: TwoBranch, names: dict[str, str]) -> None:
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name in case.group("g0/"):
        case.grad(f"g0/{name}", gradients[names[name]], _noise_like(f"g0/{name}"))
    buffers = dict(model.named_buffers())
    for name in case.group("buf1/"):
        case.value(f"buf1/{name}", buffers[names[name]])


def _model(case: Case) -> tuple[TwoBranch, dict[str, str]]:
    """The model of a case, and its parameters' names by official name."""
    weights = case.group("p0/")
    hidden, dim = weights["projector.linear1.weight"].shape[0], weights["projector.linear2.weight"].shape[0]
    widths = tuple(weights[f"encoder.conv{i}.weight"].shape[0] for i in (1, 2))
    common = dict(hidden=hidden, dim=dim)
    pixel = dict(
        type="PixPro",
        transform_layers=case.hp("transform_layer"),
        gamma=case.hp("p"),
        clamp=case.hp("clamp"),
        threshold=case.hp("pos_ratio"),
        transform_hidden=_width(weights, "value_transform.linear1.weight"),
        **common,
    )
    instance = dict(type="InstanceCosine", weight=case.hp("ins_loss_weight"), **common)
    model = TwoBranch(
        dict(backbone=dict(type="GoldenEncoder", widths=widths)),
        [pixel, instance] if any(name.startswith("predictor") for name in weights) else [pixel],
        target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=case.hp("momentum"))),
    )
    prefixes = {
        "encoder": "online.backbone",
        "encoder_k": "target.backbone",
        "projector": "online.projectors.pixpro_projector",
        "projector_k": "target.projectors.pixpro_projector",
        "projector_instance": "online.projectors.instancecosine_projector",
        "projector_instance_k": "target.projectors.instancecosine_projector",
        "predictor": "objectives.instancecosine.predictor",
        "value_transform": "objectives.pixpro.predictor.transform",
    }
    names = {}
    for name in [*weights, *case.group("buf1/")]:
        prefix, rest = name.split(".", 1)
        names[name] = f"{prefixes[prefix]}.{rest if prefix.startswith('encoder') else _renamed(rest)}"
    return model, names


def _noise_like(name: str) -> str | None:
    """For the bias in front of a batch norm, its layer's weight."""
    return name.replace("bias", "weight") if name.endswith(("linear1.bias", "conv1.bias")) else None


def _width(weights: dict[str, torch.Tensor], name: str) -> int | None:
    return len(weights[name]) if name in weights else None


def _renamed(name: str) -> str:
    part, _, rest = name.partition(".")
    return f"{MLP_KEYS[part]}.{rest}" if part in MLP_KEYS else name


def _geometry(coords: torch.Tensor) -> G.ViewGeometry:
    """A geometry whose PixPro record is ``coords``: views of one pixel on sources of two, where the record's inset
    of half a pixel at either end takes one pixel off the span."""
    start, span = coords[:, :2].double(), (coords[:, 2:] - coords[:, :2]).double()
    sign = torch.where(span < 0, -1.0, 1.0).double()
    matrix = torch.cat([torch.diag_embed(sign * (span.abs() + 1)), (start + 0.5 - sign / 2)[..., None]], -1)
    ones = torch.ones(len(coords), 2, dtype=torch.float64)
    geometry = G.ViewGeometry(matrix, ones, 2 * ones)
    np.testing.assert_allclose(G.frame_to_coords(G.pixpro_frame(geometry)), coords, atol=1e-6)
    return geometry
