"""TwoBranch, the model that all pretrainings of backbones share.

A published method (MoCo v2, BYOL, SimSiam, DINO …) is a configuration of it: a target, views, objectives.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from densessl.branches import Branch, build_branch, build_target, label_heads
from densessl.branches.branch import BranchConfig, Features, parts_for
from densessl.constraints import Config
from densessl.counting import CountingModel
from densessl.data.batch import Batch
from densessl.errors import SettingError
from densessl.objectives.base import BranchMaps, DerivedView, Forward, Objective, ObjectiveConfig, build_objective
from densessl.registry import MODELS
from densessl.schedules import Step
from densessl.version import __version__
from densessl.weights.io.checkpoints import to_plain
from densessl.weights.load import load_backbone


@MODELS.register_module()
class TwoBranch(CountingModel):
    """An online branch, a target branch, and objectives that compare their maps.

    In a step, the views are preprocessed and the objectives derive further inputs. The online branch runs the forwards
    that the objectives planned, each distinct one once. The target is updated (with ``timing="before_forward"``) and
    runs its forwards, without gradient. The objectives then compute their losses.

    Args:
        online: ``dict(backbone=…, neck=None, head=None)``: configs of any registered, ``mmdet.*`` or ``timm.*``
            backbone, of a neck, and of the shared convolutions of a head; see
            :func:`densessl.branches.branch.build_branch`.
        objectives: configs of objectives, whose losses are weighted by their ``weight`` and summed.
        target: arguments of :func:`densessl.branches.target.build_target`.
        data_preprocessor: config of :class:`densessl.preprocessor.ViewPreprocessor`.
        channels_last: keep the weights of convolutions in channels-last memory, the faster layout on CPUs and GPUs.

    Raises:
        SettingError: parts do not fit together, such as an objective that reads a level which the branch lacks.
    """

    def __init__(
        self,
        online: BranchConfig,
        objectives: Sequence[ObjectiveConfig | Objective],
        target: Annotated[dict, Config(build_target, given=("online",))] | None = None,
        data_preprocessor: Annotated[dict, Config(MODELS, filled=("views",))] | None = None,
        init_cfg: dict | None = None,
        channels_last: bool = True,
    ):
        super().__init__(data_preprocessor, init_cfg)
        self.config = dict(online)
        branch = build_branch(online)
        if isinstance(objectives, Mapping | str) or not objectives:
            raise SettingError(f"objectives: found {objectives!r:.80}, expected a list of at least one dict(type=…)")
        built = [build_objective(item) for item in objectives]
        self.objectives = nn.ModuleDict()
        self.plans: dict[str, list[Forward]] = {}
        for objective in built:
            if objective.name in self.objectives:
                raise SettingError(f"two objectives are named {objective.name!r}; give each a `name` of its own")
            self.objectives[objective.name] = objective
            self.plans[objective.name] = checked_plan(objective, branch)
            branch.add_projectors(objective.name, objective.projectors(branch.channels))
        self.online = branch
        self.target = build_target(self.online, **(target or dict(kind="ema", momentum=0.99)))
        label_heads(self)
        if channels_last:
            self.to(memory_format=torch.channels_last)

    def advance(self) -> None:
        """Count an optimiser step that was taken, and update a target with ``timing="after_step"``."""
        super().advance()
        self.target.after_step(self.online, self.step, self.horizon)

    def init_backbone(self, checkpoint: str, branch: str | None = None, resumed: bool = False) -> str:
        """Load the backbone of a file into the online branch and copy it to the target, unless the run is resumed.
        Returns a line for the log.

        Raises:
            densessl.errors.LoadError: the file has another network; nothing was loaded then.
        """
        if resumed:
            return "resumed: the weights of the checkpoint are kept"
        report = load_backbone(self.online, checkpoint, branch=branch)
        self.target.branch(self.online).backbone.load_state_dict(self.online.backbone.state_dict())
        return str(report)

    def describe(self) -> dict[str, Any]:
        """What an export has to know about the parts of a branch: plain data, kept in checkpoints."""
        normalize = {}
        if hasattr(self.data_preprocessor, "mean"):
            normalize = dict(
                mean=list(self.data_preprocessor.mean), std=list(self.data_preprocessor.std), channel_order="RGB"
            )
        given = {name: self.config[name] for name in ("backbone", "neck", "head") if self.config.get(name)}
        return dict(**to_plain(given, "model.online"), normalize=normalize, version=__version__)

    def forward(
        self, views, geometry=None, draws=None, keys=None, regions=None, derived=None, bad=(), mode: str = "tensor"
    ):
        """Entry point of MMEngine, whose train step passes the fields of a :class:`Batch` as arguments.

        Args:
            mode: "loss" for the losses; "tensor" for the online features of ``views`` (N, 3, H, W).
        """
        if mode == "loss":
            return self.loss(Batch(views, geometry, draws, keys, regions, derived, bad))
        if mode == "tensor":
            return self.online(views).levels
        raise ValueError(f"mode is {mode!r}, expected 'loss' or 'tensor'")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses and logged figures of all objectives, named ``<objective>.<figure>``.

        Args:
            batch: the preprocessed batch.
        """
        step = Step(self.step, self.horizon, self.seed)
        derived = {name: objective.derive(batch, step) for name, objective in self.objectives.items()}
        done = self._run_plans("online", self.online, batch, derived, {})
        self.target.before_forward(self.online, self.step, self.horizon)
        with torch.no_grad():
            shared = {key: value.map(Tensor.detach) for key, value in done.items()} if self.target.is_online else {}
            target_done = self._run_plans("target", self.target.branch(self.online), batch, derived, shared)
        figures = {}
        for name, objective in self.objectives.items():
            maps = self._maps(name, done, target_done)
            own = objective.weighted(maps, batch._replace(derived=derived[name]), step)
            figures |= {f"{name}.{key}": value for key, value in own.items()}
        if self.target.momentum is not None:
            figures["target_momentum"] = torch.tensor(self.target.momentum)
        return figures

    def _run_plans(
        self,
        which: str,
        branch: Branch,
        batch: Batch,
        derived: Mapping[str, Mapping[str, DerivedView]],
        done: Mapping[tuple, Features],
    ) -> dict[tuple, Features]:
        """Run each distinct planned forward once. Returns the features of its concatenated views, by :func:`_key`."""
        results = dict(done)
        for key, forward in self._wanted(which).items():
            if key in results:
                continue
            inputs = derived[key[0]] if isinstance(key[0], str) else {}
            images = [inputs[view].images if isinstance(view, str) else batch.views[view] for view in forward.views]
            views = images[0] if len(images) == 1 else torch.cat(images)
            keep = None if forward.keep is None else _kept(batch, forward).to(views.device, non_blocking=True)
            results[key] = branch(views, keep, **parts_for(*forward.levels))
        return results

    def _wanted(self, which: str) -> dict[tuple, Forward]:
        """The distinct forwards of a branch by :func:`_key`, each with all levels that objectives read from it. Under
        stop-gradient the target reads online forwards, so these compute the levels of the target, too."""
        wanted: dict[tuple, Forward] = {}
        planned = [(name, forward) for name, plan in self.plans.items() for forward in plan]
        for name, forward in sorted(planned, key=lambda item: item[1].branch != which):
            key = _key(name, forward)
            if forward.branch == which or (key in wanted and self.target.is_online):
                levels = (*wanted.get(key, forward).levels, *forward.levels)
                wanted[key] = forward._replace(levels=tuple(dict.fromkeys(levels)))
        return wanted

    def _maps(self, name: str, online: Mapping[tuple, Features], target: Mapping[tuple, Features]):
        """The maps of both branches that objective ``name`` planned."""
        seen: dict[str, dict] = {"online": {}, "target": {}}
        keeps: dict[str, dict] = {"online": {}, "target": {}}
        for forward in self.plans[name]:
            features = (online if forward.branch == "online" else target)[_key(name, forward)]
            seen[forward.branch].update(zip(forward.views, features.chunk(len(forward.views))))
            keeps[forward.branch].update(dict.fromkeys(forward.views, forward.keep))
        branch = self.target.branch(self.online)
        first = BranchMaps(self.online, seen["online"], name, grad=True, keeps=keeps["online"])
        shared = first if self.target.is_online else None
        second = BranchMaps(branch, seen["target"], name, grad=False, shared=shared, keeps=keeps["target"])
        return {"online": first, "target": second}

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum to minimise, and the figures to log. Unlike MMEngine, which sums everything with "loss" in its name,
        this sums only what objectives return as losses."""
        total = sum(value for key, value in losses.items() if key.split(".", 1)[-1].startswith("loss"))
        return total, {"loss": total.detach(), **{key: value.detach() for key, value in losses.items()}}


def checked_plan(objective: Objective, branch: Branch) -> list[Forward]:
    """The forwards of an objective.

    Raises:
        SettingError: the branch, or a masked backbone, lacks a level; or one branch has a view planned twice, of which
            the objective would see only the last forward.
    """
    plan, seen = objective.plan(), set()
    for forward in plan:
        for level in forward.levels:
            try:
                branch.channels(level)
            except ValueError as error:
                raise SettingError(f"objectives.{objective.name}: {error}") from error
            if forward.keep is not None and not parts_for(level)["tokens"]:
                raise SettingError(
                    f"objectives.{objective.name}: level {level!r} of masked views {forward.views} is asked for; a "
                    "masked backbone gives only sequences, such as level 'tokens.0'"
                )
        for view in forward.views:
            if (forward.branch, view) in seen:
                raise SettingError(
                    f"objectives.{objective.name} plans view {view!r} twice in the {forward.branch} branch; expected "
                    "one forward for each view"
                )
            seen.add((forward.branch, view))
    return plan


def _key(name: str, forward: Forward) -> tuple:
    """Forwards with equal keys share one pass: (views, keep), preceded by the objective where a view is derived."""
    owner = (name,) if any(isinstance(view, str) for view in forward.views) else ()
    return (*owner, forward.views, forward.keep)


def _kept(batch: Batch, forward: Forward) -> Tensor:
    """Indices (N, L) of the visible cells of the views of a masked pass.

    Raises:
        SettingError: a view has no mask, or the masks of one pass keep different numbers of cells.
    """
    for view in forward.views:
        if forward.keep not in batch.draws[view]:
            raise SettingError(
                f"an objective masks view {view}, whose draws have no {forward.keep!r}: give views[{view}] a `mask`"
            )
    kept = [batch.draws[view][forward.keep] for view in forward.views]
    counts = [cells.shape[1] for cells in kept]
    if len(set(counts)) > 1:
        raise SettingError(
            f"views {forward.views} share a forward and their masks keep {counts} cells; expected equal numbers: give "
            "them the same `mask`"
        )
    return torch.cat(kept)
