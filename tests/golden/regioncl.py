"""Golden cases of RegionCL-M, by the official code (commit 61bbcab; its missing ``head2`` is its only head)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from densessl import geometry as G
from densessl.data.batch import Batch
from densessl.losses import masked_mean, unit
from densessl.model import TwoBranch
from densessl.objectives.regioncl import RegionCL, pair_rows
from densessl.registry import MODELS
from densessl.schedules import Step
from tests.golden.case import Case

CELL = 32  # a constant of the official code
# Official parts of the query and key networks, and ours.
BRANCHES = {"q": "online", "k": "target"}
PARTS = {
    "backbone": "backbone.conv",
    "mlp.0": "projectors.regioncl_head.linear0",
    "mlp.2": "projectors.regioncl_head.linear1",
}


def regioncl_mix(case: Case) -> None:
    images = case["img"]
    size = (images.shape[3], images.shape[2])
    partner = torch.from_numpy(pair_rows(len(images), "reverse", 1, np.random.default_rng(0)))
    case.exact("partner", partner)
    case.exact("unshuffle", partner.argsort())
    rectangles = []
    for row, draws in enumerate(case["draws"].tolist()):
        rectangle = G.place_rectangle(G.RectangleDraws(*draws), size, CELL)
        rectangles.append(rectangle)
        mixed = G.swap_rectangle(images, partner, rectangle)
        case.value(f"checksum{row}", checksum(mixed), rtol=1e-9, atol=1e-6)
        if row == 0:
            case.exact("mixed0", mixed)
    case.exact("pixel_rect", torch.tensor(rectangles))
    case.exact("feat_rect", torch.tensor(rectangles) / CELL)
    cells = torch.tensor([G.rectangle_cells(rectangle, CELL) for rectangle in rectangles])
    assert torch.equal(cells, case["feat_rect"].long())  # as the official caller truncates them


@MODELS.register_module(force=True)
class PooledPixels(nn.Module):
    """relu(1x1 convolution of 32-pixel means), the tiny backbone the cases were made with."""

    def __init__(self, inner: int, outer: int):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 1)
        self.out_channels, self.out_strides = (outer,), (CELL,)

    def forward(self, x):
        return (self.conv(F.avg_pool2d(x, CELL)).relu(),)


class ListedDraws(RegionCL):
    """RegionCL with the rectangle of the case."""

    listed: G.RectangleDraws

    def draw(self, rng, view):
        return self.listed


def regioncl_forward(case: Case) -> None:
    weights = case.group("p0/")
    hidden, dim = (len(weights[f"q.mlp.{layer}.bias"]) for layer in (0, 2))
    objective = ListedDraws(
        name="regioncl",
        hidden=hidden,
        dim=dim,
        length=case["queue_before"].shape[1],
        temperature=case.hp("tau"),
        lower=case.hp("lower"),
        upper=case.hp("upper"),
        cell=CELL,
    )
    objective.listed = G.RectangleDraws(*case["draws"].tolist())
    outer, inner = weights["q.backbone.weight"].shape[:2]
    backbone = dict(type="PooledPixels", inner=inner, outer=outer)
    target = dict(kind="ema", momentum=case.hp("momentum"))
    model = TwoBranch(dict(backbone=backbone), [objective], target).train()
    model.load_state_dict({renamed(name): value for name, value in weights.items()}, strict=False)
    queue = objective.queue
    queue.load_state_dict(
        dict(bank_keys=case["queue_before"].T, state_keys=torch.tensor([case["queue_ptr_before"], 0, 0])), strict=False
    )
    views = [case["img_q"], case["img_k"]]
    batch = Batch(views, [placed(view) for view in views], [{}, {}], torch.zeros(len(views[0]), 2))

    bank, seen = queue.keys("keys").clone(), []
    objective.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    losses = model.loss(batch)
    total, _ = model.parse_losses(losses)
    (maps,) = seen
    plain, mixed = (maps["online"][view][-1] for view in (0, "composite0"))
    plain.retain_grad()
    mixed.retain_grad()
    total.backward()

    step = Step(model.step)
    swap = objective.swap(views[0], 0, step)
    canvas_cells = ~G.rectangle_mask(swap.cells, mixed.shape[2:])
    case.value("feat_plain", plain)
    case.value("feat_mix", mixed)
    case.exact("mask", canvas_cells.expand_as(case["mask"]))
    case.exact("feat_rect", torch.tensor(swap.cells))
    case.value("pooled", torch.cat([masked_mean(mixed, canvas_cells), masked_mean(mixed, ~canvas_cells)]))
    q, k = objective.vectors(maps)
    canvas, paste, shown_in = objective.canvas_and_paste(maps, 0, batch, step, "head")
    canvas, paste = unit(canvas), unit(paste)
    region, intra = torch.cat([canvas, paste[shown_in]]), torch.cat([paste, canvas[shown_in]])
    case.value("q", q)
    case.value("k", k)
    case.value("q_canvas", canvas)
    case.value("q_paste_shuffle", paste)
    case.value("q_paste", paste[shown_in])
    case.value("q_canvas_shuffle", canvas[shown_in])
    case.value("l_pos_instance", (q * k).sum(1, keepdim=True))
    case.value("l_neg_instance", q @ bank.T)
    case.value("l_pos_region", (region * torch.cat([k, k])).sum(1, keepdim=True))
    case.value("l_neg_region", torch.cat([(region * intra).sum(1, keepdim=True), region @ bank.T], 1))
    for name in ("instance", "region"):
        case.value(f"loss_{name}", losses[f"regioncl.loss_{name}"])
    case.value("loss_total", total)

    case.grad("grad_feat_plain", plain.grad)
    case.grad("grad_feat_mix", mixed.grad)
    parameters = dict(model.named_parameters())
    for name in case.group("g0/"):
        case.grad(f"g0/{name}", parameters[renamed(name)].grad)
    for name in case.group("p1/"):
        case.value(f"p1/{name}", parameters[renamed(name)])
    case.value("queue_after", queue.keys("keys").T)
    case.exact("queue_ptr_after", queue.state_keys[0])


def renamed(name: str) -> str:
    branch, part = name.split(".", 1)
    part, leaf = part.rsplit(".", 1)
    return f"{BRANCHES[branch]}.{PARTS[part]}.{leaf}"


def placed(images: torch.Tensor) -> G.ViewGeometry:
    """Views that are their own sources: RegionCL asks for no geometry."""
    size = (images.shape[3], images.shape[2])
    return G.ViewGeometry.stack([(G.affine.identity(), size, size)] * len(images))


def checksum(images: torch.Tensor) -> torch.Tensor:
    """sum(x) and the sums of x times its column, row and image number."""
    images = images.double()
    count, _, height, width = images.shape
    number, row, column = (torch.arange(n, dtype=torch.float64) for n in (count, height, width))
    weights = (torch.ones(1), column, row[:, None], number[:, None, None, None])
    return torch.stack([(images * weight).sum() for weight in weights])
