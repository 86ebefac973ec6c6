"""Golden cases of CCOP, by the official code (commit 956b952)."""

import numpy as np
import torch
from torch import Tensor, nn

from densessl import geometry as G
from densessl.branches.roi import align_regions, assign_levels
from densessl.data import placed as P
from densessl.data.batch import Batch, Regions, SampleRegions, pack_regions
from densessl.data.views import CropDraw, ViewSpec, choose_try, cut_view, kept_in_crop
from densessl.geometry import affine
from densessl.losses import pairwise_hinge, unit, valid_mean
from densessl.model import TwoBranch
from densessl.objectives.ccop import CCOP, Curriculum, by_image, candidates, hardest, over_the_run, within_images
from densessl.registry import MODELS
from densessl.schedules import Horizon, Step
from tests.golden.case import Case
from tests.golden.encoder import record

LEVELS = ("p2", "p3", "p4", "p5", "img")
# Official parts of the two heads in the two networks, and ours.
HEADS = {
    "img_neck_q": "online.projectors.moco_head",
    "img_neck_k": "target.projectors.moco_head",
    "roi_neck_q": "online.projectors.ccop_regions",
    "roi_neck_k": "target.projectors.ccop_regions",
}
LAYERS = {"linear_1.0": "linear0", "last_linear": "linear1"}


def ccop_jitter(case: Case) -> None:
    boxes = case["boxes"]
    limit = torch.tensor([case.hp("img_w"), case.hp("img_h")]).expand(len(boxes), 2)
    values = Curriculum(case.hp("iou_thr"), case.hp("xy_mag"), case.hp("wh_mag"))
    found, valid = candidates(boxes, torch.cat([case["u_xy"], case["u_wh"]], 2), values, limit)
    count = case["jit_boxes"].shape[1]  # with or without the box itself
    case.value("jit_boxes", found[:, :count])
    case.value("iou", G.paired_iou(found, boxes[:, None])[:, :count])
    case.exact("invalid", ~valid[:, :count])
    case.informative("margin")


def ccop_intra(case: Case) -> None:
    counts = case["n_boxes"].tolist()
    owner = torch.repeat_interleave(torch.arange(len(counts)), case["n_boxes"])
    q, k = (case[f"e_{name}"].requires_grad_() for name in "qk")
    *rows, boxes, real = by_image(owner, len(counts), unit(q), unit(k), case["boxes_k"])
    sim, valid = within_images(*rows, boxes, real, 0.05)  # a constant of the official code
    sim.retain_grad()
    hinges = pairwise_hinge(sim, valid, case.hp("margin"))
    loss = valid_mean(hinges.flatten(), valid.flatten(), "local")
    loss.backward()

    def blocks(values: Tensor) -> Tensor:
        return torch.cat([item[:count, :count].flatten() for item, count in zip(values, counts)])

    case.value("iou", blocks(G.pairwise_iou(boxes, boxes)))
    case.exact("valid", blocks(valid))
    case.value("sim", blocks(sim))
    compare_loss(case, "loss", loss, torch.zeros(()))
    case.grad("grad_sim", blocks(sim.grad))
    case.grad("grad_e_q", q.grad)
    case.grad("grad_e_k", k.grad)


def compare_loss(case: Case, name: str, actual: Tensor, otherwise: Tensor) -> None:
    """Where there is nothing to average the official loss is not a number; ours is ``otherwise``."""
    if case[name].isfinite():
        case.value(name, actual)
    else:
        torch.testing.assert_close(actual.detach(), otherwise.detach())


def ccop_curriculum(case: Case) -> None:
    objective = CCOP(length=1, **lines(case))
    horizon = horizon_of(case)
    case.value("values", [objective.curriculum(Step(count - 1, horizon)) for count in case["iteration"].tolist()])


def lines(case: Case) -> dict:
    jitter = case["hp_jit_mag"].tolist()
    pairs = dict(iou_threshold=case["hp_iou_thr"].tolist(), jitter_xy=jitter[:2], jitter_wh=jitter[2:])
    return {key: over_the_run(*pair) for key, pair in pairs.items()}


def horizon_of(case: Case) -> Horizon:
    return Horizon(1, case.hp("total_step"), case.hp("total_step"), 1, 1)


def ccop_boxes(case: Case) -> None:
    size, source_size = case.hp("size"), tuple(case["image_wh"].tolist())
    boxes = case["boxes"].double().numpy()
    pixels = case["image_src"].numpy() if "image_src" in case else np.zeros((*source_size[::-1], 3), np.uint8)
    image = P.Placed(pixels, affine.identity(), source_size)
    spec = ViewSpec(size=size)
    flips, order = (case["rand"][:2] > 0.5).tolist(), (0, 1) if case["rand"][2] > 0.5 else (1, 0)
    views = []
    for number, flip in zip("12", flips):
        crop = crop_of(case, number, boxes)
        (geometry,) = geometries(cut_view(image, crop, spec, "pil"))
        clipped, kept = G.boxes_to_view(geometry, case["boxes"][None])
        case.value(f"crop_boxes_{number}", clipped[0])
        case.exact(f"keep_{number}", kept[0] > case.hp("part_thr"))
        case.exact(f"keep_{number}", torch.from_numpy(kept_in_crop(boxes, crop) > case.hp("part_thr")))
        case.value(f"scale_{number}", (crop.width * crop.height / source_size[0] / source_size[1]) ** 0.5)
        views.append(cut_view(image, crop._replace(hflip=flip), spec, "pil"))

    # The official code swaps the two views, with their boxes, by a third draw.
    views = [views[number] for number in order]
    geometry = geometries(*views)
    regions = pack_regions(
        [SampleRegions(boxes, case["classes"].numpy(), {"jitter": np.zeros((len(boxes), 0))})], geometry
    )
    batch = Batch([view.image for view in views], geometry, [{}, {}], torch.zeros(1, 2), regions)
    options = dict(kept=case.hp("part_thr"), min_area=case.hp("area_thr"), reference=size)
    found = CCOP(length=1, **options).surviving(batch)
    for name, view, survivors in zip("ab", views, found.boxes):
        case.value(f"ret_boxes_{name}", survivors)
        if f"ret_img_{name}" in case:
            case.exact(f"ret_img_{name}", view.image.copy())
    case.exact("ret_classes", found.levels)


def crop_of(case: Case, number: str, boxes: np.ndarray) -> CropDraw:
    """The crop that view ``number`` takes of those listed, tried one after the other."""
    counts, crops, chosen = [], [], None
    for top, left, height, width in case[f"crops{number}"].tolist():
        crops.append(CropDraw(left, top, width, height, False, False, 0.0))
        counts.append(int((kept_in_crop(boxes, crops[-1]) > case.hp("part_thr")).sum()))
        chosen = choose_try(counts, len(boxes), case.hp("min_box_num"), case.hp("max_try"))
        if chosen is not None:
            break
    case.exact(f"tries_{number}", len(counts))
    return crops[chosen]


def geometries(*views: P.Placed) -> list[G.ViewGeometry]:
    return [G.ViewGeometry.stack([(view.to_source, view.size, view.source_size)]) for view in views]


@MODELS.register_module(force=True)
class GoldenLevels(nn.Module):
    """A backbone whose views are its maps, one after the other in a vector."""

    def __init__(self, shapes: list[tuple[int, ...]]):
        super().__init__()
        self.shapes = shapes
        self.out_channels = tuple(shape[0] for shape in shapes)
        self.out_strides = (4, 8, 16, 32, 32)

    def forward(self, x):
        parts = x.split([int(np.prod(shape)) for shape in self.shapes], 1)
        return tuple(part.unflatten(1, shape) for part, shape in zip(parts, self.shapes))


class GivenRegions(CCOP):
    """CCOP with the regions of the case as they are: the official loader chose and clamped them."""

    def surviving(self, batch):
        return batch.regions


def ccop_forward(case: Case) -> None:
    model, objective = model_of(case)
    batch = batch_of(case)
    regions, step = batch.regions, Step(model.step, model.horizon)
    outputs = {name: record(model.get_submodule(path)) for name, path in HEADS.items()}
    losses = model.loss(batch)
    total, _ = model.parse_losses(losses)
    total.backward()

    values = objective.curriculum(step)
    for name, value in zip(("iou_thr", "mag_xy", "mag_wh"), values):
        case.value(name, value)
    limit = batch.geometry[1].view_size[regions.owner]
    found, valid = candidates(regions.boxes[1], regions.draws["jitter"].unflatten(1, (-1, 4)), values, limit)
    case.value("jit_boxes_k", found)
    case.exact("invalid", ~valid)
    case.value("img_embed_q_raw", outputs["img_neck_q"][0])
    case.value("img_embed_k", unit(outputs["img_neck_k"][0]))

    maps = model.online(batch.views[0]).levels[:-1]
    level = assign_levels(regions.boxes[0], objective.sizes, limit, objective.reference)
    features = align_regions(maps, regions.boxes[0], regions.owner, level, limit, case.hp("pool_size"))
    case.value("roi_feats_q", features.flatten(1))
    # Heads saw the regions level after level.
    q = torch.cat(outputs["roi_neck_q"])[places(level)]
    case.value("roi_embed_q_raw", q)
    several = limit.repeat_interleave(found.shape[1], 0)
    level_k = assign_levels(found.flatten(0, 1), objective.sizes, several, objective.reference)
    keys = unit(torch.cat(outputs["roi_neck_k"])[places(level_k)]).unflatten(0, valid.shape)
    case.value("roi_embed_k", keys)
    case.value("roi_embed_k_ori", keys[:, -1])
    case.value("cand_score", (unit(q)[:, None] * keys).sum(2) + 5 * ~valid)
    chosen = hardest(unit(q), keys, valid)
    case.exact("min_ind", chosen)
    case.value("roi_pos_embed", keys[torch.arange(len(keys)), chosen])

    image, region, intra = (losses[name] for name in ("moco.loss", "ccop.loss_region", "ccop.loss_intra"))
    case.value("img_loss", image)
    compare_loss(case, "roi_loss", region, torch.zeros(()))
    compare_loss(case, "intra_loss", intra, torch.zeros(()))
    compare_loss(case, "loss_total", total, image + region + intra)

    case.grad("grad_img_embed_q_raw", outputs["img_neck_q"][0].grad)
    if len(level):
        case.grad("grad_roi_embed_q_raw", torch.cat([item.grad for item in outputs["roi_neck_q"]])[places(level)])
    for name, gradient in zip(LEVELS, model.online.backbone(batch.views[0].grad)):
        case.grad(f"grad_{name}_q", gradient)
    for name in case.group("g0/"):
        case.grad(f"g0/{name}", model.get_parameter(renamed(name)).grad)
    for name in case.group("p1/"):
        case.value(f"p1/{name}", model.get_parameter(renamed(name)))
    for name, queue, bank in queues(model):
        case.value(f"{name}_queue_after", queue.keys(bank).mT)
        case.exact(f"{name}_queue_ptr_after", queue.state_dict()[f"state_{bank}"][0])
    model.advance()
    case.exact("iter_after", model.global_step)
    case.informative("argmin_gap", "iou_margin")


def model_of(case: Case) -> tuple[TwoBranch, CCOP]:
    weights = case.group("p0/")

    def options(name: str, head: str) -> dict:
        dim, length = case[f"{name}_queue_before"].shape
        hidden = len(weights[f"{head}_q.mlp.linear_1.0.bias"])
        return dict(dim=dim, length=length, hidden=hidden, temperature=case.hp("tau"))

    objective = GivenRegions(
        name="ccop",
        levels=(0, 1, 2, 3),
        sizes=case["hp_assign_sizes"].tolist()[::-1],
        reference=case.hp("image_size"),
        output=case.hp("pool_size"),
        dropout=0.0,
        margin=case.hp("margin"),
        intra_iou=case.hp("intra_iou"),
        truncate=True,
        **lines(case),
        **options("roi", "roi_neck"),
    )
    shapes = [tuple(case[f"{name}_q"].shape[1:]) for name in LEVELS]
    model = TwoBranch(
        dict(backbone=dict(type="GoldenLevels", shapes=shapes)),
        [dict(type="MoCo", **options("img", "img_neck")), objective],
        dict(kind="ema", momentum=case.hp("momentum")),
    )
    model.load_state_dict({renamed(name): value for name, value in weights.items()}, strict=False)
    for name, queue, bank in queues(model):
        state = torch.stack([case[f"{name}_queue_ptr_before"], *[torch.tensor(0)] * 2])
        queue.load_state_dict({f"bank_{bank}": case[f"{name}_queue_before"].T, f"state_{bank}": state}, strict=False)
    model.begin(horizon_of(case))
    model.step = int(case["iter_before"])
    return model.train(), objective


def queues(model: TwoBranch):
    """Official name, module and bank of the two queues."""
    yield "img", model.objectives["moco"].queue, "keys"
    yield "roi", model.objectives["ccop"].queue, "regions"


def batch_of(case: Case) -> Batch:
    counts, size = case["boxes_num"].flatten(), case.hp("image_size")
    images = len(counts)
    views = [torch.cat([case[f"{name}_{short}"].flatten(1) for name in LEVELS], 1) for short in "qk"]
    views[0].requires_grad_()
    geometry = G.ViewGeometry.stack([(affine.identity(), (size, size), (size, size))] * images)
    boxes = [torch.cat([item[:count] for item, count in zip(case[f"boxes_{short}"], counts)]) for short in "qk"]
    whole = torch.ones(len(boxes[0]))
    regions = Regions(
        boxes,
        [whole, whole],
        boxes[0],
        whole.long(),
        torch.repeat_interleave(torch.arange(images), counts),
        {"jitter": torch.cat([case["u_xy"], case["u_wh"]], 2).flatten(1)},
    )
    return Batch(views, [geometry, geometry], [{}, {}], torch.zeros(images, 2), regions)


def places(level: Tensor) -> Tensor:
    """Where each region is when they are sorted by level."""
    return level.argsort(stable=True).argsort()


def renamed(name: str) -> str:
    head, _, rest = name.partition(".mlp.")
    layer, _, parameter = rest.rpartition(".")
    return f"{HEADS[head]}.{LAYERS[layer]}.{parameter}"
