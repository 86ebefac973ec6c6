"""The interface every objective has: what it needs from the branches, and what it makes of it."""

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

View = int | str


ObjectiveConfig = Annotated[dict, Config(OBJECTIVES)]  # dict(type="MoCo", …)


class Forward(NamedTuple):
    """One forward pass an objective wants.

    Attributes:
        branch: "online" or "target".
        views: the views that share this pass, and with it their batch-norm statistics: numbers of loaded views or
            names of derived ones, all of one size.
        levels: what is read of the result; neck and head run only where one of their levels is among them. A masked
            backbone gives sequences ("tokens.i") only.
        keep: name of the draw with the indices of the cells that a masked backbone looks at (``ViewSpec.mask``); None
            for the whole view.
    """

    branch: str
    views: tuple[View, ...]
    levels: tuple[Level, ...] = (-1,)
    keep: str | None = None


class DerivedView(NamedTuple):
    """A view an objective made from preprocessed ones.

    Attributes:
        images: (M, 3, h, w).
        geometry: of the M images.
        owner: (M,) batch row each image belongs to.
    """

    images: Tensor
    geometry: ViewGeometry
    owner: Tensor


class BranchMaps:
    """One objective's sight of one branch: ``maps[view][level]`` and projections of them.

    Args:
        branch: the module.
        features: by view, of the passes this objective planned.
        objective: name of the objective, whose projectors these are.
        grad: whether projections carry gradient.
        shared: the online maps, when the target *is* the online branch: its projections are then the online ones,
            detached, instead of a second pass that would move batch-norm statistics twice.
        keeps: by view, what its pass was masked by. Only passes masked alike are shared.
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
        """Projector ``name`` on one map; computed once however often it is asked for.

        Args:
            view: of several views, in a tuple, the maps (or vectors) go through the projector as one batch, with common
                batch-norm statistics, and come back in that order.
            pool: average the map over its cells first: the projector gets a vector (N, C) a view.
            read: what to do to the map first instead, such as sampling it elsewhere. Asked for by the same function,
                both branches project the same.
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
        """The module behind ``name``, for its settings and weights; for its outputs use :meth:`project`."""
        return self._branch.projector(self._objective, name)

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """Projector ``name`` on a tensor of the objective's own making."""
        with torch.set_grad_enabled(self._grad and torch.is_grad_enabled()):
            return self.projector(name)(tensor)


class Objective(nn.Module):
    """Base of all objectives.

    A subclass states the forwards it wants (:meth:`plan`), the projectors both branches shall have
    (:meth:`projectors`), inputs it derives from preprocessed views (:meth:`derive`), and the loss
    (:meth:`forward`). It owns its predictor, queues and centres, never a target: which target the model has, it
    does not know.

    Args:
        name: of its log entries, projectors and state; the class name in lower case by default.
        weight: of its loss in the sum; a number, or the config of a schedule
            (:func:`densessl.schedules.build_schedule`).
        views: the two (or more) loaded views it looks at.
        level: it works on: of the backbone (an index into its outputs), of the neck ("neck.i"), or of one of the head's
            towers at the neck's output i ("cls.i", "reg.i"). "tokens.i" is the sequence of a transformer's output i.

    Attributes:
        two_views: whether the objective compares exactly two views; a subclass says so.

    Raises:
        SettingError: it has another number of views then.
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
        self.weight = scheduled(weight)
        self.views = tuple(views)
        self.level = level
        if self.two_views and len(self.views) != 2:
            raise SettingError(
                f"objectives.{self.name}.views is {self.views}; {type(self).__name__} compares exactly two views"
            )

    def plan(self) -> list[Forward]:
        """Forwards wanted; by default every view alone through both branches, as siamese methods do."""
        return [Forward(branch, (view,), (self.level,)) for branch in ("online", "target") for view in self.views]

    def one_way(self) -> list[Forward]:
        """The plan of methods that are not symmetric: the first view is query, the second key."""
        first, second = self.views
        return [Forward("online", (first,), (self.level,)), Forward("target", (second,), (self.level,))]

    def projectors(self, channels: Callable[[Level], int]) -> dict[str, nn.Module]:
        """Projectors by name; ``channels(level)`` is the width of a level. Built once, copied into the target."""
        return {}

    def unmet(self, views: Sequence[ViewSpec], regions: Mapping[str, Any] | None) -> list[str]:
        """What the objective needs of the settings of views and regions and does not find, a sentence each.

        Args:
            views: of an image, in order.
            regions: config of their source, None without one.
        """
        return []

    def derive(self, batch: Batch, step: Step) -> dict[str, DerivedView]:
        """New inputs made after preprocessing, by name, which :meth:`plan` may ask for."""
        return {}

    def forward(self, maps: Mapping[str, BranchMaps], batch: Batch, step: Step) -> dict[str, Tensor]:
        """Scalars by name. Those whose name starts with "loss" are weighted and summed; the rest is only logged.

        Args:
            maps: "online" and "target".
            batch: preprocessed; ``batch.derived`` holds what :meth:`derive` made.
            step: where training stands.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")
