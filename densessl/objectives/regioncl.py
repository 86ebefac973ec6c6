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
    """For each of ``count`` rows, the row whose rectangle it gets, (count,). Rows ``r::groups`` pair among themselves.

    Args:
        pairing: "reverse" pairs the first row with the last and so on, and the middle one of an odd number with itself.
            "shift" pairs each row with the next and the last with the first. "permutation" pairs at random, possibly a
            row with itself, and in the same way in all groups.
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
        shown_in: (N,) composite that shows the rectangle of each row; the inverse of ``partner``.
        pixels, cells: the rectangle in the view and in its map.
    """

    partner: Tensor
    shown_in: Tensor
    pixels: Rectangle
    cells: Rectangle


class RegionSwap(Objective):
    """Base class: composites of views, in which a rectangle ("paste") of another image of the batch lies on the rest of
    the view ("canvas"), and the vectors of these two parts. Each optimiser step has one rectangle per view, equal on
    all ranks.

    This base comes before the method that it extends: ``class RegionCL(RegionSwap, MoCo)``.

    Args:
        lower, upper: the sides of the rectangle are ``lower`` to ``upper - 1`` cells.
        cell: side of a cell in pixels of the view: the stride of ``level``.
        placement: how the rectangle is placed. "official", as in the code behind the published results: the clamp
            leaves the last pixel of the view free, so that on either axis about two thirds of the rectangles lie off
            the grid, and the cells taken for them lie up to one cell left of or above them. "aligned" clamps to the
            last cell instead. "cells" draws the start in cells, as the open port of RegionCL-D does. See
            :mod:`densessl.geometry.rectangle`.
        pairing: "reverse" (official), "shift" or "permutation"; see :func:`pair_rows`. Each rank pairs its own rows.
        groups: number of ranks whose pairing one process reproduces.
        instance_weight, region_weight: weights of ``loss_instance``, which is the loss of the extended method, and of
            ``loss_region``.
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
        """The views from which composites are made."""
        return self.views

    def plan(self) -> list[Forward]:
        """The passes of the extended method, and a separate pass for each composite."""
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
        """Draw the rectangle of a step in a view of (width, height) pixels."""
        try:
            return draw_rectangle(rng, view, self.cell, self.lower, self.upper, self.placement == "cells")
        except ValueError as error:
            raise SettingError(f"objectives.{self.name}: {error}") from None

    def swap(self, images: Tensor, view: View, step: Step) -> Swap:
        """How the composites of ``images`` (N, C, H, W) of a view are made in this step; repeatable."""
        size = (images.shape[3], images.shape[2])
        draws = self.draw(step.rng(f"{self.name}.rectangle{view}"), size)
        pixels = place_rectangle(draws, size, self.cell, aligned=self.placement != "official")
        partner = pair_rows(len(images), self.pairing, self.groups, step.rng(f"{self.name}.pairs{view}"))
        rows = (torch.from_numpy(index).to(images.device) for index in (partner, partner.argsort()))
        return Swap(*rows, pixels, rectangle_cells(pixels, self.cell))

    def derive(self, batch: Batch, step: Step) -> dict[str, DerivedView]:
        """Composites of preprocessed views. A composite belongs to the image of its canvas."""
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
        """Projections of the two parts of the composites: the means of the cells outside and inside the rectangle,
        passed through the projector as one batch of 2N.

        Returns:
            canvas, paste: (N, C), row i from composite i; and ``shown_in`` (N,), the composite that shows the rectangle
            of row i.

        Raises:
            SettingError: ``cell`` is not the stride of the level.
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
    """RegionCL-M (section 3.3): MoCo v2, and the same contrast for the parts of composite queries, with the same head,
    keys and queue.

    The canvas of composite i is a query for key i, and so is the paste that shows image i, which lies in another
    composite. Each has one additional negative, without gradient: the other part of the same composite.
    ``loss_region`` is the mean over these 2N rows. Only keys enter the queue. Not symmetric.

    With ``pairing="permutation"``, ``placement="cells"``, and :class:`densessl.objectives.densecl.DenseCL` as a second
    objective, this is RegionCL-D as in an open port; the authors have not released theirs.
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
        # Before MoCo's forward pushes the keys of this step.
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
    """RegionCL-S: SimSiam, and the same regression from the parts of composites of each view to the target of the
    other.

    A reconstruction: only results of the authors' version are public. ``loss_region`` is the mean of
    ``-cos(predictor(z), target)`` over canvas and paste and both directions. The parts of a view's composites form one
    batch of 2N for the norms of projector and predictor, as for the head of RegionCL-M; each view has its own
    rectangle.
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
