"""Golden cases of SIM, by the official code (commit bbdec30)."""

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from densessl.branches.positions import grid_points, point_embedding, relative_embedding
from densessl.branches.vit import ViT
from densessl.data.batch import Batch
from densessl.data.placed import Placed
from densessl.data.views import CropDraw, ViewSpec, cut_view
from densessl.geometry import ViewGeometry, affine, relative_cells
from densessl.losses import correlation, unigrad_terms
from densessl.model import TwoBranch
from densessl.objectives.sim import SIM
from tests.distributed import run_pair
from tests.golden.case import Case
from tests.golden.unigrad import unigrad_of

# First parts of official names, and ours: of what both branches have (the target's begin with "mm_"), of the rest.
BRANCH = {
    "cls_token": "backbone.cls_token",
    "patch_embed": "backbone.patch_embed",
    "blocks": "backbone.blocks",
    "decoder_embed": "projectors.sim_tokens.embed",
    "projector_decoder_blocks": "projectors.sim_tokens.blocks",
}
OWN = {
    "mask_token": "objectives.sim.decoder.mask_token",
    "decoder_pos_mlp": "objectives.sim.decoder.position",
    "predictor_decoder_blocks": "objectives.sim.decoder.blocks",
    "decoder_pred": "objectives.sim.decoder.output",
}
TABLE = (
    {name: f"online.{ours}" for name, ours in BRANCH.items()}
    | {f"mm_{name}": f"target.{ours}" for name, ours in BRANCH.items()}
    | OWN
)
# Without counterpart: tables of positions, which are made anew; a mask token that the official target does not use; the
# norm of predictions, whose weights the official code leaves at 1 and 0.
ABSENT = ("pos_embed", "decoder_pos_embed", "mm_mask_token", "student_norm")
RECORD = ("delta_i", "delta_j", "delta_h", "delta_w", "relative_flip", "flip_delta_j")
CLOSE = dict(rtol=2e-5, atol=2e-5)


def sim_view_record(case: Case) -> None:
    image, size = case["image"].numpy(), int(case["size"])
    assert image.shape == (case["H"], case["W"], 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for row, params in enumerate(case["params"].tolist()):
        views = [_cut(image, params[:5], size), _cut(image, params[5:], size)]
        _compare_record(views, case["record"][row])
        for name, view in zip(("view1", "view2"), views):
            pixels = (torch.from_numpy(view.image / np.float32(255)) - mean) / std
            torch.testing.assert_close(pixels.permute(2, 0, 1), case[name][row], rtol=0, atol=1e-5)


def sim_view_draws(case: Case) -> None:
    blank = np.zeros((int(case["H"]), int(case["W"]), 3), np.uint8)
    for params, record in zip(case["params"].tolist(), case["record"], strict=True):
        _compare_record([_cut(blank, params[:5], 8), _cut(blank, params[5:], 8)], record)
    case.informative("seeds")  # of the official draws, which are given


def sim_relpos(case: Case) -> None:
    dim, side = int(case["embed_dim"]), int(case["grid_size"])
    points, scale = relative_cells(*_geometry(case, side), (side, side), (side, side))
    found = relative_embedding(points.float(), scale.float(), dim)
    case.value("rel_pos_embed", found, **CLOSE)
    fixed = point_embedding(grid_points((side, side), points), dim)
    torch.testing.assert_close(fixed, case["fixed_pos_embed_cls"][1:], rtol=0, atol=1e-12)
    case.value("fixed_pos_embed_cls", ViT(side, 1, dim, depth=1, heads=1).pos_embed[0], rtol=0, atol=1e-6)


def sim_loss(case: Case) -> None:
    pred = case["pred"].requires_grad_()
    online_ln = bool(case["online_ln"])
    loss = _loss(pred, case["target"], case["neg_weight"].item(), online_ln)
    loss.backward()
    case.value("loss", loss, rtol=1e-5, atol=0)
    case.value("grad_pred", pred.grad, rtol=0, atol=1e-6)
    p, t = (case[name].double().flatten(0, 1) for name in ("pred", "target"))
    t = F.layer_norm(t, t.shape[1:])
    case.value("correlation_f64", correlation(t), rtol=0, atol=1e-10)
    terms = unigrad_terms(F.layer_norm(p, p.shape[1:]) if online_ln else p, t, correlation(t))
    for name, term in zip(("pos_term_f64", "neg_term_f64"), terms):
        case.value(name, term.mean(), rtol=1e-10, atol=0)


def sim_loss_world2(case: Case) -> None:
    for rank, found in enumerate(run_pair(on_rank, case["pred"], case["target"], case["neg_weight"].item())):
        loss, gradient, matrix = found
        torch.testing.assert_close(loss.double(), case["loss"][rank], rtol=1e-5, atol=0)
        torch.testing.assert_close(gradient, case["grad_pred"][rank], rtol=0, atol=1e-6)
        case.value("correlation_f64", matrix, rtol=0, atol=1e-10)


def on_rank(pred: Tensor, target: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
    pred, target = pred[dist.get_rank()].requires_grad_(), target[dist.get_rank()]
    loss = _loss(pred, target, weight)
    loss.backward()
    rows = target.double().flatten(0, 1)
    return loss.detach(), pred.grad, correlation(F.layer_norm(rows, rows.shape[1:]))


def _loss(pred: Tensor, target: Tensor, weight: float, online_ln: bool = False) -> Tensor:
    objective = SIM(dim=4, heads=1, decoder_depth=0, negative_weight=weight, norm_predictions=online_ln)
    return objective.compare(pred, target, torch.ones(pred.shape[:2], dtype=torch.bool))["loss"]


def sim_model(case: Case) -> None:
    model = _model(case)
    state = {_ours(name): value for name, value in case.group("sd/").items() if not name.startswith(ABSENT)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    bookkeeping = ("pos_embed", "global_step", "updated_at")
    assert not unexpected and all(name.endswith(bookkeeping) for name in missing), (missing, unexpected)
    for branch in (model.online, model.target):
        case.value("sd/pos_embed", branch.backbone.pos_embed, rtol=0, atol=1e-6)
    decoder, seen = model.objectives["sim"].decoder, {}
    decoder.register_forward_hook(lambda _, args, out: out.retain_grad() or seen.update(pred=out))
    model.target.projectors["sim_tokens"].register_forward_hook(lambda _, args, out: seen.update(target=out[:, 1:]))
    norm = {name: value.double() for name, value in case.group("sd/student_norm.").items()}
    if norm and ((norm["weight"] != 1).any() or norm["bias"].any()):
        model.objectives["sim"].norm_predictions = False
        decoder.register_forward_hook(lambda _, args, out: F.layer_norm(out, out.shape[2:], **norm))

    visible = (case["mask"] == 0).flatten(1)
    keep = visible.nonzero()[:, 1].view(len(visible), -1)
    views = [case["x1"].double(), case["x2"].double()]
    geometry = _geometry(case, views[0].shape[-1])
    figures = model.loss(Batch(views, geometry, [{"keep": keep}, {}], torch.zeros(len(keep), 2)))
    total, _ = model.parse_losses(figures)
    total.backward()

    case.value("loss", total, **CLOSE)
    case.value("pred", seen["pred"], **CLOSE)
    case.value("target", seen["target"], **CLOSE)
    case.grad("grad_pred", seen["pred"].grad)
    gradients = {name: item.grad for name, item in model.named_parameters() if item.grad is not None}
    assert gradients.keys() == {_ours(name) for name in case.group("grad/")}
    for name in case.group("grad/"):
        case.grad(f"grad/{name}", gradients[_ours(name)])
    before, state = state, model.state_dict()
    after = {name for name in case.group("after/") if not name.startswith(ABSENT)}
    case.informative(*(f"after/{name}" for name in case.group("after/") if name.startswith(ABSENT)))
    for name in after:
        case.value(f"after/{name}", state[_ours(name)], **CLOSE)
    for name in before.keys() - {_ours(name) for name in after}:
        assert torch.equal(state[name].to(before[name].dtype), before[name]), f"{name} must not change"


def sim_vs_unigrad(case: Case) -> None:
    pred = case["pred"].requires_grad_()
    loss = _loss(pred, case["target"], case["neg_weight"].item())
    loss.backward()
    case.value("sim_loss", loss, rtol=1e-5, atol=0)
    case.value("sim_grad", pred.grad, rtol=0, atol=1e-6)
    p, t = pred.detach().flatten(0, 1), F.layer_norm(case["target"], pred.shape[2:]).flatten(0, 1)
    other, gradient = unigrad_of(p, t, case["neg_weight"].item())
    case.value("unigrad_loss", other, rtol=1e-5, atol=1e-5)
    case.value("unigrad_grad", gradient, rtol=0, atol=1e-6)
    rows, dim = p.shape
    torch.testing.assert_close(pred.grad[0], 2 / dim * gradient + 2 * p / (rows * dim), rtol=0, atol=1e-6)


def _model(case: Case) -> TwoBranch:
    size, patch, dim, depth, heads = case["cfg_img_patch_dim_depth_heads"].tolist()
    width, projector, predictor, decoder_heads, ratio = case[
        "cfg_decdim_projdepth_preddepth_decheads_mlpratio"
    ].tolist()
    projector_ln, predictor_ln, online_ln, train_patches = case["cfg_flags_projln_predln_onlineln_trainpatch"].tolist()
    norms = (dict(type="SyncBN"), dict(type="LN", eps=1e-6))
    backbone = dict(
        type="ViT",
        image_size=size,
        patch_size=patch,
        dim=dim,
        depth=depth,
        heads=heads,
        mlp_ratio=ratio,
        layer_scale=1.0 if "sd/blocks.0.ls1.gamma" in case else None,
        freeze_patch_embed=not train_patches,
    )
    objective = dict(
        type="SIM",
        patch_size=patch,
        dim=width,
        heads=decoder_heads,
        mlp_ratio=ratio,
        projector_depth=projector,
        decoder_depth=predictor,
        projector_norm=norms[projector_ln],
        decoder_norm=norms[predictor_ln],
        norm_predictions=bool(online_ln),
        negative_weight=case["neg_weight"].item(),
    )
    momentum = case["mm"].item() if case["update_mm"] else 1.0
    model = TwoBranch(dict(backbone=backbone), [objective], dict(kind="ema", momentum=momentum))
    return model.double().train()


def _ours(name: str) -> str:
    part, _, rest = name.replace(".bn.", ".").partition(".")
    return f"{TABLE[part]}.{rest}" if rest else TABLE[part]


def _geometry(case: Case, size: int) -> list[ViewGeometry]:
    """Views of size x size pixels with this record, the first of which is its source."""
    di, dj, dh, dw, flip, djf = (case[name].double() for name in RECORD)
    zero = torch.zeros_like(di)
    # A flipped column u of the second view lies at djf - dw * u of the first one's width.
    x = torch.stack([torch.where(flip == 1, -dw, dw), zero, torch.where(flip == 1, djf, dj) * size], -1)
    second = torch.stack([x, torch.stack([zero, dh, di * size], -1)], 1)
    first = torch.from_numpy(affine.identity()).expand_as(second)
    sizes = torch.full((len(di), 2), float(size), dtype=torch.float64)
    return [ViewGeometry(first, sizes, sizes), ViewGeometry(second, sizes, sizes)]


def _cut(image: np.ndarray, params: list[int], size: int) -> Placed:
    """A view of the pipeline, given an official row (flip, top, left, height, width), whose box lies in the image
    flipped."""
    flip, top, left, height, width = params
    left = image.shape[1] - left - width if flip else left
    draw = CropDraw(left, top, width, height, bool(flip), False, 0.0)
    spec = ViewSpec(size=size, interpolation="bicubic")
    return cut_view(Placed(image, affine.identity(), image.shape[1::-1]), draw, spec, resample="pil")


def _compare_record(views: list[Placed], record: Tensor) -> None:
    """The record, of which the geometry tells one of the two shifts in x: that of views flipped, or not."""
    first, second = (ViewGeometry.stack([(view.to_source, view.size, view.source_size)]) for view in views)
    points, scale = relative_cells(first, second, (1, 1), (1, 2))
    (x, y), right = points[0, 0] + 0.5, points[0, 1, 0] + 0.5
    dw, dh = 2 * scale[0, 0], scale[0, 1]
    flip = right < x
    shift = x + dw / 4 if flip else x - dw / 4
    expected = record[[0, 5 if flip else 1, 2, 3, 4]]
    found = torch.stack([y - dh / 2, shift, dh, dw, flip.to(dh)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
