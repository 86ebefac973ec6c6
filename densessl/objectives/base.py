"""The interface of objectives: the forwards and projectors that they need, and the losses that they compute."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from densessl.branches.branch import Branch, Features, Level
from densessl.constraints import Config
from densessl.data.batch import Batch
from densessl.data.views import ViewSpec
from densessl.errors import SettingError
from densessl.geometry import ViewGeometry
from densessl.registry import OBJECTIVES
from densessl.schedules import ScheduledNonNegative, Step, scheduled
from densessl.signatures import arguments_of
from densessl.wording import choose

View = int | str


ObjectiveConfig = Annotated[dict, Config(OBJECTIVES)]  # dict(type="MoCo", …)


class Forward(NamedTuple):
    """A forward pass that an objective needs.

    Attributes:
        branch: "online" or "target".
        views: the views that share this pass, and with it their batch-norm statistics: numbers of loaded views or
            names of derived ones, all of one size.
        levels: levels of the result that are read. Neck and head run only if one of their levels is among them. A
            masked backbone gives only sequences ("tokens.i").
        keep: name of the draw with the indices of the cells that a masked backbone sees (``ViewSpec.mask``); None for
            the whole view.
    """

    branch: str
    views: tuple[View, ...]
    levels: tuple[Level, ...] = (-1,)
    keep: str | None = None


class DerivedView(NamedTuple):
    """A view that an objective derived from preprocessed ones.

    Attributes:
        images: (M, 3, h, w).
        geometry: geometry of the M images.
        owner: (M,) batch row that each image belongs to.
    """

    images: Tensor
    geometry: ViewGeometry
    owner: Tensor


class BranchMaps:
    """The maps of one branch that one objective sees, as ``maps[view][level]``, and projections of these maps.

    Args:
        branch: the module.
        features: features of the passes that this objective planned, by view.
        objective: name of the objective that owns the projectors.
        grad: whether projections carry gradient.
        shared: the online maps if the target *is* the online branch. Its projections are then the detached online ones,
            since a second pass would update batch-norm statistics twice.
        keeps: name of the mask of each view's pass; only passes with the same mask are shared.
    """

    def __init__(
        self,
        branch: Branch,
        features: Mapping[View, Features],
        objective: str,
        grad: bool,
        shared: "BranchMaps | None" = None,
        keeps: Mapping[View, str | None] = {},
    ):
        self._branch = branch
        self._features = features
        self._objective = objective
        self._grad = grad
        self._shared = shared
        self._keeps = keeps
        self._projected: dict[tuple, Tensor] = {}

    def __getitem__(self, view: View) -> Features:
        return self._features[view]

    def project(
        self,
        name: str,
        view: View | tuple[View, ...],
        level: Level = -1,
        pool: bool = False,
        read: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Project one map. Each projection is computed once and cached.

        Args:
            name: name of the projector.
            view: one view, or a tuple of views whose maps (or vectors) pass the projector as one batch, with common
                batch-norm statistics, and are returned in that order.
            level: the level of the map.
            pool: average the map over its cells first, so that the projector gets one vector (N, C) for each view.
            read: function applied to the map before the projector, such as one that samples it elsewhere. It is part of
                the cache key, so pass the same function object to share a projection.
        """
        key = (name, view, level, pool, read)
        if key not in self._projected:
            views = view if isinstance(view, tuple) else (view,)
            if self._shared is not None and all(self._same_pass(item) for item in views):
                self._projected[key] = self._shared.project(*key).detach()
            else:
                maps = [self.pooled(item, level) if pool else self[item][level] for item in views]
                maps = maps if read is None else [read(item) for item in maps]
                self._projected[key] = self.apply(name, maps[0] if len(maps) == 1 else torch.cat(maps))
        return self._projected[key]

    def _same_pass(self, view: View) -> bool:
        return view in self._shared._features and self._shared._keeps.get(view) == self._keeps.get(view)

    def pooled(self, view: View, level: Level = -1) -> Tensor:
        """Mean of a map over its cells, (N, C)."""
        return self[view][level].mean((2, 3))

    def projector(self, name: str) -> nn.Module:
        """The projector ``name``, for its settings and weights; for its outputs use :meth:`project`."""
        return self._branch.projector(self._objective, name)

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """Apply projector ``name`` to any tensor; not cached."""
        with torch.set_grad_enabled(self._grad and torch.is_grad_enabled()):
            return self.projector(name)(tensor)


class Objective(nn.Module):
    """Base of all objectives.

    A subclass declares the forwards that it needs (:meth:`plan`), the projectors that both branches need
    (:meth:`projectors`), inputs that it derives from preprocessed views (:meth:`derive`), and its loss
    (:meth:`forward`). It owns its predictor, queues and centres, but never a target: it does not know which target the
    model has.

    Args:
        name: prefix of its log entries, projectors and state; by default the class name in lower case.
        weight: weight of its losses in the sum; a number, or the config of a schedule
            (:func:`densessl.schedules.build_schedule`).
        views: the two (or more) loaded views that it uses.
        level: the map that it works on: an index into the backbone's outputs, "neck.i" for an output of the neck, or
            "cls.i" or "reg.i" for a tower of the head at the neck's output i. "tokens.i" is the sequence of a
            transformer's output i.

    Attributes:
        two_views: whether a subclass compares exactly two views.

    Raises:
        SettingError: ``two_views`` is set and ``views`` are not two.
    """

    two_views: ClassVar[bool] = False

    def __init__(
        self,
        name: str | None = None,
        weight: ScheduledNonNegative = 1.0,
        views: Sequence[View] = (0, 1),
        level: Level = -1,
    ):
        super().__init__()
        self.name = name or type(self).__name__.lower()
        if "." in self.name:
            raise SettingError(f"name: found {self.name!r}, expected a name without dots")
        self.weight = scheduled(weight)
        self.views = tuple(views)
        self.level = level
        if self.two_views and len(self.views) != 2:
            raise SettingError(
                f"objectives.{self.name}.views is {self.views}; {type(self).__name__} compares exactly two views"
            )

    def plan(self) -> list[Forward]:
        """The forwards that the objective needs; by default each view on its own through both branches, as in siamese
        methods."""
        return [Forward(branch, (view,), (self.level,)) for branch in ("online", "target") for view in self.views]

    def one_way(self) -> list[Forward]:
        """The plan of asymmetric methods: the first view is the query, the second the key."""
        first, second = self.views
        return [Forward("online", (first,), (self.level,)), Forward("target", (second,), (self.level,))]

    def projectors(self, channels: Callable[[Level], int]) -> dict[str, nn.Module]:
        """Projectors by name, built once and copied into the target. ``channels(level)`` is the width of a level."""
        return {}

    def unmet(self, views: Sequence[ViewSpec], regions: Mapping[str, Any] | None) -> list[str]:
        """What the objective needs and does not find in the settings of views and regions, one sentence each.

        Args:
            views: the views of an image, in order.
            regions: config of the source of regions; None if there is none.
        """
        return []

    def derive(self, batch: Batch, step: Step) -> dict[str, DerivedView]:
        """Inputs derived from preprocessed views, by name. :meth:`plan` may use these names as views."""
        return {}

    def forward(self, maps: Mapping[str, BranchMaps], batch: Batch, step: Step) -> dict[str, Tensor]:
        """Compute losses and figures to log.

        Args:
            maps: maps of the "online" and the "target" branch.
            batch: the preprocessed batch; ``batch.derived`` holds the result of :meth:`derive`.
            step: the current step.

        Returns:
            Scalars by name. Those whose names start with "loss" are weighted and summed; the others are only logged.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def weighted(self, maps: Mapping[str, BranchMaps], batch: Batch, step: Step) -> dict[str, Tensor]:
        """What :meth:`forward` returns, with losses multiplied by the weight of this step, and figures detached."""
        weight = self.weight(step)
        return {
            key: value * weight if key.startswith("loss") else value.detach()
            for key, value in self(maps, batch, step).items()
        }


def build_objective(objective: Objective | ObjectiveConfig) -> Objective:
    """An objective, built if it is a config.

    Raises:
        SettingError: it is neither, there is no objective of its type, or its type lacks one of its arguments; the
            message has the nearest names.
    """
    if isinstance(objective, Objective):
        return objective
    OBJECTIVES.import_from_location()
    if not isinstance(objective, Mapping):
        known = ", ".join(sorted(OBJECTIVES.module_dict))
        raise SettingError(f"objective: found {objective!r:.80}, expected dict(type=…, …), with a type of {known}")
    kind = objective.get("type")
    if not isinstance(kind, type):
        kind = OBJECTIVES.get(choose("objective", kind, OBJECTIVES.module_dict))
    valid = arguments_of(kind)
    for name in objective:
        if valid is not None and name not in ("type", "_scope_", *getattr(kind, "RENAMED", ())):
            choose(f"objective {kind.__name__}: argument", name, valid)
    return OBJECTIVES.build(dict(objective))
