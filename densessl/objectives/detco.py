"""DetCo (Xie et al., ICCV 2021, arXiv 2102.04803). Its pretraining code was never released: this follows the paper and,
where the paper is silent, its unofficial port."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from densessl.augment.jigsaw import cut_tiles, jigsaw_corners, tile_geometry
from densessl.branches.projector import MLP
from densessl.branches.queue import Queue
from densessl.constraints import AutoCount, Count, NonNegative, Positive
from densessl.data.batch import Batch
from densessl.data.views import ViewSpec
from densessl.errors import SettingError
from densessl.losses import info_nce, unit
from densessl.objectives.base import BranchMaps, DerivedView, Forward, Objective, View
from densessl.registry import OBJECTIVES

TILES = ("tiles_query", "tiles_key")
# Kind of query and of key of each term.
TERMS = {"gg": ("global", "global"), "ll": ("local", "local"), "gl": ("local", "global")}


@OBJECTIVES.register_module()
class DetCo(Objective):
    """MoCo at every stage of the backbone: between whole views, between their patches, and across (section 3).

    ``loss = sum over stages w_s (L_gg + L_ll + L_gl)``, each an InfoNCE against the queue of its key's kind and stage:
    global query and key, local query and key, *local* query and *global* key. A global vector is the pooled map of a
    stage, passed through a head; a local vector is the concatenation of the pooled maps of nine jigsaw tiles of a view,
    in shuffled order, passed through another head. No head and no queue is shared. The tiles of a view form a separate
    batch of small maps, with its own batch-norm statistics. Not symmetric.

    Known from the paper: stages, heads, queues, the three terms, the views. Reconstructed: the weights and the hidden
    width of the global heads (from the unofficial port), and the hidden width of the local heads (a free choice).

    ``top1_*`` and ``positive_cosine`` refer to the last stage.

    Args:
        levels: levels of the backbone (or neck), shallow to deep.
        weights: weight w_s of each level.
        hidden: hidden width of the global heads; None for the width of the level.
        local_hidden: hidden width of the local heads.
        dim: width of queries and keys.
        length: number of keys in each queue.
        temperature: softmax temperature of all terms.
        local: whether to use patches. Without them only L_gg is left, and two views are enough.
        grid, tile: number of tiles along a side, and side of a tile in pixels. The local views need
            ``uniforms=dict(jigsaw=3 * grid**2)``.
        views: global query, global key, local query, local key.
    """

    def __init__(
        self,
        levels: Sequence[int | str] = (0, 1, 2, 3),
        weights: Sequence[NonNegative] = (0.1, 0.4, 0.7, 1.0),
        hidden: Count | None = None,
        local_hidden: Count = 2048,
        dim: Count = 128,
        length: AutoCount = 65536,
        temperature: Positive = 0.2,
        local: bool = True,
        grid: Count = 3,
        tile: Count = 64,
        views: Sequence[View] | None = None,
        **kwargs,
    ):
        super().__init__(views=views or ((0, 1, 2, 3) if local else (0, 1)), **kwargs)
        if len(self.views) != (4 if local else 2):
            raise SettingError(
                f"objectives.{self.name}.views is {self.views}; with local={local} it takes {4 if local else 2} views"
            )
        if len(levels) != len(weights):
            raise SettingError(
                f"objectives.{self.name}.weights is {weights}, expected one for each of the levels {levels}"
            )
        self.levels = tuple(levels)
        self.weights = tuple(weights)
        self.hidden = hidden
        self.local_hidden = local_hidden
        self.dim = dim
        self.temperature = temperature
        self.local = local
        self.grid = grid
        self.tile = tile
        kinds = ("global", "local") if local else ("global",)
        self.queue = Queue({f"{kind}{i}": dim for kind in kinds for i in range(len(self.levels))}, length)

    def unmet(self, views: Sequence[ViewSpec], regions: Mapping[str, Any] | None) -> list[str]:
        reasons, numbers = [], 3 * self.grid**2
        for view in self.views[2:]:
            count = views[view].uniforms.get("jigsaw", 0)
            if count != numbers:
                reasons.append(f"view {view} needs uniforms=dict(jigsaw={numbers}), found jigsaw={count}")
            cell = min(views[view].width_height) // self.grid
            if self.tile > cell:
                reasons.append(f"tile is {self.tile}, and cells of the {self.grid}x{self.grid} grid have {cell} pixels")
        return reasons

    def plan(self) -> list[Forward]:
        branches = ("online", "target")
        inputs = [*zip(branches, self.views)] + ([*zip(branches, TILES)] if self.local else [])
        return [Forward(branch, (view,), self.levels) for branch, view in inputs]

    def projectors(self, channels):
        heads = {}
        for i, level in enumerate(self.levels):
            width = channels(level)
            heads[f"global{i}"] = MLP(dims=(width, self.hidden or width, self.dim), init="kaiming")
            if self.local:
                dims = (self.grid**2 * width, self.local_hidden, self.dim)
                heads[f"local{i}"] = MLP(dims=dims, init="kaiming")
        return heads

    def derive(self, batch: Batch, step) -> dict[str, DerivedView]:
        if not self.local:
            return {}
        return {name: self.tiles(batch, view) for name, view in zip(TILES, self.views[2:])}

    def tiles(self, batch: Batch, view: int) -> DerivedView:
        """The shuffled tiles of a local view, grouped by image. They stay shuffled: as in PIRL, the local heads see the
        patches in random slots."""
        images, draws = batch.views[view], batch.draws[view]
        if "jigsaw" not in draws:
            raise SettingError(
                f"objectives.{self.name}: view {view} comes with the draws {sorted(draws)}; "
                f"give views[{view}] uniforms=dict(jigsaw={3 * self.grid**2})"
            )
        # The random numbers are on the CPU, and so is the arithmetic on them.
        corners = jigsaw_corners(draws["jigsaw"], tuple(images.shape[2:]), self.grid, self.tile)
        corners = corners.to(images.device, non_blocking=True)
        owner = torch.arange(len(images), device=images.device).repeat_interleave(self.grid**2)
        return DerivedView(
            cut_tiles(images, corners, self.tile), tile_geometry(batch.geometry[view], corners, self.tile), owner
        )

    def vectors(self, maps: BranchMaps, view: View, tiles: View) -> dict[str, list[Tensor]]:
        """Normalised vectors (N, dim) of one branch, a list over the stages for each kind."""
        vectors = {"global": [], "local": []}
        for i, level in enumerate(self.levels):
            vectors["global"].append(unit(maps.project(f"global{i}", view, level, pool=True)))
            if self.local:
                concatenated = maps.pooled(tiles, level).unflatten(0, (-1, self.grid**2)).flatten(1)
                vectors["local"].append(unit(maps.apply(f"local{i}", concatenated)))
        return vectors

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        queries = self.vectors(maps["online"], self.views[0], TILES[0])
        keys = self.vectors(maps["target"], self.views[1], TILES[1])
        figures = {}
        for term, (query, key) in TERMS.items():
            stages = [
                info_nce(q, k, self.queue.keys(f"{key}{i}"), temperature=self.temperature)
                for i, (q, k) in enumerate(zip(queries[query], keys[key]))
            ]
            if stages:
                figures[f"loss_{term}"] = sum(w * stage.rows.mean() for w, stage in zip(self.weights, stages))
                figures[f"top1_{term}"] = stages[-1].hits.float().mean()
        for kind, stages in keys.items():
            for i, k in enumerate(stages):
                self.queue.push(f"{kind}{i}", k)
        cosine = (queries["global"][-1] * keys["global"][-1]).sum(1).mean()
        return {**figures, "positive_cosine": cosine, **self.queue.figures(f"global{len(self.levels) - 1}")}
