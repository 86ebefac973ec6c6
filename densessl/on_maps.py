"""Objectives on feature maps that other code computes."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from densessl.branches import Branch, Features, build_target, label_heads
from densessl.constraints import Config
from densessl.counting import CountingModel
from densessl.data.batch import Batch, Regions
from densessl.errors import SettingError
from densessl.geometry import ViewGeometry
from densessl.model import checked_plan
from densessl.objectives.base import BranchMaps, Objective, ObjectiveConfig, build_objective
from densessl.schedules import Step
from densessl.wording import count

Maps = Sequence[Tensor | Sequence[Tensor] | None]


class ObjectiveOnMaps(CountingModel):
    """An objective, with its online and target projectors, for the feature maps of your own network.

    Call :meth:`begin` before the first step if any setting is a schedule, and :meth:`advance` after each optimiser
    step, as for :class:`densessl.TwoBranch`.

    Args:
        objective: an objective, or its config: ``dict(type="PixPro", hidden=1024, dim=128)``.
        channels: number of channels of the maps; a sequence if there are several levels.
        target: how the target's projectors follow the online ones: arguments of
            :func:`densessl.branches.target.build_target`. By default, they are a moving average.

    Raises:
        SettingError: the objective needs more than maps: views that it makes itself, masks, or the outputs of a neck,
            a head or a transformer.
    """

    def __init__(
        self,
        objective: Objective | ObjectiveConfig,
        channels: int | Sequence[int],
        target: Annotated[dict, Config(build_target, given=("online",))] | None = None,
    ):
        super().__init__()
        self.objective = build_objective(objective)
        self.channels = (channels,) if isinstance(channels, int) else tuple(channels)
        self.plan = self.objective.plan()
        for forward in self.plan:
            names = [name for name in (*forward.views, *forward.levels) if isinstance(name, str)]
            if names:
                raise SettingError(
                    f"objectives.{self.objective.name} needs {names[0]!r}, expected an objective that reads only maps "
                    "of loaded views, by number; use TwoBranch"
                )
        self.online = Branch(_OtherNetwork(self.channels), None, {})
        checked_plan(self.objective, self.online)
        self.online.add_projectors(self.objective.name, self.objective.projectors(self.online.channels))
        self.target = build_target(self.online, **(target or dict(kind="ema", momentum=0.99)))
        label_heads(self)

    def advance(self) -> None:
        """Count an optimiser step, after it was taken, and move a target that moves then."""
        super().advance()
        self.target.after_step(self.online, self.step, self.horizon)

    def forward(
        self,
        online: Maps,
        geometry: Sequence[ViewGeometry],
        target: Maps | None = None,
        regions: Regions | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss.

        Args:
            online: for each view, its map (N, C, H, W), or a sequence of maps, one for each level; None for a view that
                the objective does not read (MoCo reads the first view here, and the second one in ``target``). A map
                covers its whole view.
            geometry: for each view, where it lies in its source, on the device of the maps.
            target: maps of the target network (such as a moving average of yours), in the same form; used without
                gradient. Only a target of the kind ``"stop_gradient"`` does without: it then takes the online maps.
            regions: regions of the images, for objectives that need them
                (:func:`densessl.data.batch.pack_regions`).

        Returns:
            the weighted loss to minimise, and detached figures by name: the weighted losses and what else the
            objective logs.

        Raises:
            SettingError: maps or geometry of a view are missing, or have another batch size or number of channels than
                expected.
        """
        if target is None and not self.target.is_online:
            raise SettingError(
                f"target: found None, expected the maps of a target network, since the target is {self.target.kind!r}; "
                "to have the online maps without gradient, pass target=dict(kind='stop_gradient') to ObjectiveOnMaps"
            )
        self.target.before_forward(self.online, self.step, self.horizon)
        name = self.objective.name
        first = BranchMaps(self.online, self._read("online", "online", online, geometry), name, grad=True)
        if target is None:
            others, shared = self._read("target", "online", online, geometry), first
        else:
            others, shared = self._read("target", "target", target, geometry), None
        detached = {view: features.map(Tensor.detach) for view, features in others.items()}
        second = BranchMaps(self.target.branch(self.online), detached, name, grad=False, shared=shared)
        keys = torch.zeros(len(geometry[0].matrix), 2, dtype=torch.int64, device=geometry[0].matrix.device)
        batch = Batch([], list(geometry), [{} for _ in geometry], keys, regions, {})
        figures = self.objective.weighted(
            {"online": first, "target": second}, batch, Step(self.step, self.horizon, self.seed)
        )
        loss = sum(value for key, value in figures.items() if key.startswith("loss"))
        return loss, {key: value.detach() for key, value in figures.items()}

    def _read(self, branch: str, argument: str, maps: Maps, geometry: Sequence[ViewGeometry]) -> dict[int, Features]:
        """The features that the objective reads of a branch, by view, from the maps in an argument."""
        views = sorted({view for forward in self.plan if forward.branch == branch for view in forward.views})
        if len(maps) != len(geometry) or len(maps) <= max(views, default=-1):
            raise SettingError(
                f"{argument}: found maps of {count(len(maps), 'view')} and the geometry of {len(geometry)}, expected "
                f"an entry per view in both; objectives.{self.objective.name} reads views {views}"
            )
        read = {}
        for view in views:
            levels = () if maps[view] is None else (maps[view],) if isinstance(maps[view], Tensor) else maps[view]
            found = [tuple(level.shape[:2]) for level in levels]
            expected = [(len(geometry[view].matrix), channels) for channels in self.channels]
            if found != expected:
                raise SettingError(
                    f"{argument}[{view}]: found maps of (images, channels) {found}, expected {expected}, from the "
                    "geometry and the setting `channels`"
                )
            read[view] = Features(tuple(levels))
        return read


class _OtherNetwork(nn.Module):
    """Stands in a branch for the network that computes the maps."""

    def __init__(self, out_channels: tuple[int, ...]):
        super().__init__()
        self.out_channels = out_channels
