"""RegionCL (Xu et al., ECCV 2022, arXiv 2111.12309): contrast of the two parts of composite images."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from densessl.constraints import Count, NonNegative
from densessl.data.batch import Batch
from densessl.data.views import ViewSpec
from densessl.errors import SettingError
from densessl.geometry import (
    Rectangle,
    RectangleDraws,
    draw_rectangle,
    place_rectangle,
    rectangle_cells,
    rectangle_mask,
    swap_rectangle,
)
from densessl.losses import cosine_regression, info_nce, masked_mean, unit
from densessl.objectives.base import BranchMaps, DerivedView, Forward, Objective, View
from densessl.objectives.moco import MoCo
from densessl.objectives.simsiam import SimSiam
from densessl.registry import OBJECTIVES
from densessl.schedules import Step
from densessl.wording import choose


def pair_rows(count: int, pairing: str, groups: int, rng: np.random.Generator) -> np.ndarray:
    """Which row's rectangle each of ``count`` rows gets, (count,). Rows ``r::groups`` pair among themselves.

    Args:
        pairing: "reverse": the first with the last and so on, the middle one of an odd number with itself. "shift":
            each with the next, the last with the first. "permutation": at random, possibly with itself; the same in all
            groups.
    """
    partner = np.empty(count, np.int64)
    order = rng.permutation(-(-count // groups))
    for first in range(groups):
        rows = np.arange(first, count, groups)
        if pairing == "reverse":
            partner[rows] = rows[::-1]
        elif pairing == "shift":
            partner[rows] = np.roll(rows, -1)
        else:
            partner[rows] = rows[order[order < len(rows)]]
    return partner


class Swap(NamedTuple):
    """How the composites of a view are made.

    Attributes:
        partner: (N,) row whose rectangle each composite shows.
        shown_in: (N,) composite that shows each row's rectangle, the inverse of ``partner``.
        pixels, cells: the rectangle in the view and in its map.
    """

    partner: Tensor
    shown_in: Tensor
    pixels: Rectangle
    cells: Rectangle


class RegionSwap(Objective):
    """Base: composites of views, whose rectangle ("paste") comes from another image of the batch, and the vectors of
    their two parts. One rectangle an optimiser step and view, the same on all ranks.

    The base comes before the method it extends: ``class RegionCL(RegionSwap, MoCo)``.

    Args:
        lower, upper: sides of the rectangle in cells, from ``lower`` to ``upper - 1``.
        cell: side of a cell in view pixels: the stride of ``level``.
        placement: of the rectangle. "official" as in the code that gave the published results: the clamp leaves the
            view's last pixel free, so that on either axis about two thirds of the rectangles lie off the grid, and the
            cells taken for them up to a cell left of or above them. "aligned" clamps to the last cell instead. "cells"
            draws the start in cells, as the open port of RegionCL-D does. See :mod:`densessl.geometry.rectangle`.
        pairing: "reverse" (official), "shift" or "permutation"; see :func:`pair_rows`. Every rank pairs its own rows.
        groups: number of ranks whose pairing one process is to reproduce.
        instance_weight, region_weight: of ``loss_instance``, the extended method's loss, and ``loss_region``.
    """

    def __init__(
        self,
        lower: Count = 3,
        upper: Count = 6,
        cell: Count = 32,
        placement: Literal["official", "aligned", "cells"] = "official",
        pairing: Literal["reverse", "shift", "permutation"] = "reverse",
        groups: Count = 1,
        instance_weight: NonNegative = 1.0,
        region_weight: NonNegative = 1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.lower, self.upper, self.cell = lower, upper, cell
        self.placement = choose(f"objectives.{self.name}.placement", placement, ("official", "aligned", "cells"))
        self.pairing = choose(f"objectives.{self.name}.pairing", pairing, ("reverse", "shift", "permutation"))
        self.groups = groups
        self.instance_weight, self.region_weight = instance_weight, region_weight

    def swapped(self) -> Sequence[View]:
        """The views of which composites are made."""
        return self.views

    def plan(self) -> list[Forward]:
        """The method's own passes, and one for each composite, with batch-norm statistics of its own."""
        return super().plan() + [Forward("online", (f"composite{view}",), (self.level,)) for view in self.swapped()]

    def unmet(self, views: Sequence[ViewSpec], regions: Mapping[str, Any] | None) -> list[str]:
        reasons = []
        for view in self.swapped():
            try:
                self.draw(np.random.default_rng(0), views[view].width_height)
            except ValueError as error:
                reasons.append(f"view {view}: {error}")
        return reasons

    def draw(self, rng: np.random.Generator, view: tuple[int, int]) -> RectangleDraws:
        """The numbers of a step's rectangle in a view of (width, height) pixels."""
        try:
            return draw_rectangle(rng, view, self.cell, self.lower, self.upper, self.placement == "cells")
        except ValueError as error:
            raise SettingError(f"objectives.{self.name}: {error}") from None

    def swap(self, images: Tensor, view: View, step: Step) -> Swap:
        """How the composites of ``images`` (N, C, H, W), the given view, are made in this step: always the same."""
        size = (images.shape[3], images.shape[2])
        draws = self.draw(step.rng(f"{self.name}.rectangle{view}"), size)
        pixels = place_rectangle(draws, size, self.cell, aligned=self.placement != "official")
        partner = pair_rows(len(images), self.pairing, self.groups, step.rng(f"{self.name}.pairs{view}"))
        rows = (torch.from_numpy(index).to(images.device) for index in (partner, partner.argsort()))
        return Swap(*rows, pixels, rectangle_cells(pixels, self.cell))

    def derive(self, batch: Batch, step: Step) -> dict[str, DerivedView]:
        """Composites of preprocessed views; a composite belongs to the image it is the canvas of."""
        derived = {}
        for view in self.swapped():
            images = batch.views[view]
            swap = self.swap(images, view, step)
            composite = swap_rectangle(images, swap.partner, swap.pixels)
            owner = torch.arange(len(images), device=images.device)
            derived[f"composite{view}"] = DerivedView(composite, batch.geometry[view], owner)
        return derived

    def canvas_and_paste(
        self, maps: Mapping[str, BranchMaps], view: View, batch: Batch, step: Step, projector: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Projections of the composites' parts: means of the cells outside and inside the rectangle, through the
        projector as one batch of 2N.

        Returns:
            canvas, paste: (N, C), row i from composite i; and ``shown_in`` (N,): the composite with row i's rectangle.
        """
        images, features = batch.views[view], maps["online"][f"composite{view}"][self.level]
        for found, side in zip(features.shape[2:], images.shape[2:]):
            if found not in (side // self.cell, -(-side // self.cell)):
                raise SettingError(
                    f"objectives.{self.name}.cell is {self.cell}, but level {self.level!r} has {found} cells for "
                    f"{side} pixels; expected the stride of that level, about {side / found:g}"
                )
        swap = self.swap(images, view, step)
        inside = rectangle_mask(swap.cells, features.shape[2:], features.device)
        pooled = torch.cat([masked_mean(features, ~inside), masked_mean(features, inside)])
        return *maps["online"].apply(projector, pooled).chunk(2), swap.shown_in


@OBJECTIVES.register_module()
class RegionCL(RegionSwap, MoCo):
    """RegionCL-M (section 3.3): MoCo v2, and the same contrast for the parts of composite queries, by the same head
    against the same keys and queue.

    The canvas of composite i is a query for key i; so is the paste that shows image i, which lies in another composite.
    Each has one negative more, the other part of its own composite, without gradient.
    ``loss_region`` is the mean over these 2N rows. Only keys enter the queue. Not symmetric.

    With ``pairing="permutation"``, ``placement="cells"``, and :class:`densessl.objectives.densecl.DenseCL` beside it,
    it is RegionCL-D as an open port builds it; the authors have not released theirs.
    """

    def swapped(self) -> Sequence[View]:
        return self.views[:1]

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        _, k = self.vectors(maps)
        canvas, paste, shown_in = self.canvas_and_paste(maps, self.views[0], batch, step, "head")
        canvas, paste = unit(canvas), unit(paste)
        queries, keys = torch.cat([canvas, paste[shown_in]]), torch.cat([k, k])
        other_part = torch.cat([paste, canvas[shown_in]]).detach()
        intra = (queries * other_part).sum(1, keepdim=True)
        # Before MoCo's own forward pushes this step's keys.
        rows, hits = info_nce(queries, keys, self.queue.keys("keys"), intra, self.temperature)
        figures = super().forward(maps, batch, step)
        return {
            "loss_instance": self.instance_weight * figures.pop("loss"),
            "loss_region": self.region_weight * rows.mean(),
            "top1_region": hits.float().mean(),
            "positive_cosine_region": (queries * keys).sum(1).mean(),
            "intra_cosine": intra.mean(),
            **figures,
        }


@OBJECTIVES.register_module()
class RegionCLSimSiam(RegionSwap, SimSiam):
    """RegionCL-S: SimSiam, and its regression from the parts of composites of either view to the other view's target.

    A reconstruction: of the authors' version only results are public. ``loss_region`` is the mean of the canvas' and
    the paste's ``-cos(predictor(z), target)`` over both directions. The parts of a view's composites are one batch of
    2N to the norms of projector and predictor, as they are one batch to the head of RegionCL-M; each view has a
    rectangle of its own.
    """

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        cosine, intra = 0, 0
        for view, other in zip(self.views, self.views[::-1]):
            canvas, paste, shown_in = self.canvas_and_paste(maps, view, batch, step, "projector")
            target = maps["target"].project("projector", other, self.level, pool=True)
            prediction = self.predictor(torch.cat([canvas, paste[shown_in]]))
            cosine = cosine + cosine_regression(prediction, torch.cat([target, target])) / 2
            intra = intra + cosine_regression(canvas.detach(), paste.detach()) / 2
        figures = super().forward(maps, batch, step)
        return {
            "loss_instance": self.instance_weight * figures.pop("loss"),
            "loss_region": -self.region_weight * cosine,
            "intra_cosine": intra,
            **figures,
        }
