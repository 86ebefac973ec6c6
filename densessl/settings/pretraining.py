"""Checks that the settings of a pretraining fit together.

The rules are those of the classes, whose constructors are called. Networks are built on PyTorch's ``meta`` device,
where they take no memory and compute nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple

import mmengine.registry as mmengine
import torch

from densessl.branches import build_branch
from densessl.branches.branch import Branch
from densessl.constraints import AUTO, Config
from densessl.data.dataset import WANTS_KEYS, ImageDataset
from densessl.data.views import ViewSpec, expand_views
from densessl.errors import DensesslError
from densessl.model import TwoBranch, checked_plan
from densessl.objectives.base import Forward, Objective
from densessl.registry import AUGMENTATIONS, DATASETS, MODELS, OBJECTIVES, SCOPE
from densessl.settings.lookup import UnknownType, find, load_scope
from densessl.settings.loops import LINKED
from densessl.settings.schema import REQUIRED, Argument, is_ours
from densessl.settings.walk import Walk
from densessl.signatures import arguments_of
from densessl.weights.detector.stock import pretraining_model, stock_model
from densessl.wording import nearest

KEY_SAMPLER = "KeySampler"
DETECTOR = Annotated[dict, Config(mmengine.MODELS)]
# The hooks that a pretraining needs, each with the line of the shared base that has it.
HOOKS = {
    "StepHook": 'step=dict(type="StepHook")',
    "LRHook": 'lr=dict(type="LRHook", schedule=dict(type="warmup_cosine", warmup_epochs=…))',
    "ExportHook": 'export=dict(type="ExportHook")',
}


class View(NamedTuple):
    """A view of an image, and its place in the config.

    Attributes:
        path: key path of its entry in ``views``.
        spec: the view.
    """

    path: str
    spec: ViewSpec


def check_together(found: Walk, content: Mapping[str, Any]) -> None:
    """Report settings of a pretraining that are valid on their own but do not fit together.

    Args:
        found: the walk over the settings, which collects the problems.
        content: the config as plain data.
    """
    check_hooks(found, content)
    check_data(found, content)
    model = content.get("model")
    if isinstance(model, Mapping) and isinstance(model.get("detector"), str | Mapping):
        check_detector(found, model)
    views = all_views(found, content)
    if views is None:
        return
    for view in views:
        check_view(found, view)
        if view.spec.regions is not None and not content.get("regions"):
            found.problem(f"{view.path}.regions", "needs the regions of the images, but the config has no `regions`")
    if isinstance(model, Mapping) and not found.has_problem("model") and is_two_branch(model):
        check_two_branch(found, model, views, content.get("regions"))


def check_hooks(found: Walk, content: Mapping[str, Any]) -> None:
    """Report the hooks that a pretraining lacks."""
    by_name, others = content.get("default_hooks") or {}, content.get("custom_hooks") or ()
    hooks = [*(by_name.values() if isinstance(by_name, Mapping) else ()), *others]
    types = {str(hook.get("type")).rpartition(".")[2] for hook in hooks if isinstance(hook, Mapping)}
    if content.get("param_scheduler"):
        found.problem("param_scheduler", "is not used in a pretraining; the rate's is default_hooks.lr.schedule")
    for name, line in HOOKS.items():
        if name not in types:
            key = line.partition("=")[0]
            found.problem(f"default_hooks.{key}", f"missing, a pretraining needs default_hooks=dict({line})")


def check_data(found: Walk, content: Mapping[str, Any]) -> None:
    """Report the top-level entries that the data set needs and the config lacks."""
    loader = content.get("train_dataloader")
    dataset = loader.get("dataset") if isinstance(loader, Mapping) else None
    if not isinstance(dataset, Mapping):
        return
    try:
        kind = find(DATASETS, dataset.get("type"), SCOPE)
    except UnknownType:
        return  # reported by the walk
    arguments = arguments_of(kind) or {}
    if isinstance(kind, type) and issubclass(kind, ImageDataset):
        check_collation(found, loader.get("collate_fn"))
    sampler = loader.get("sampler")
    name = str(sampler.get("type")).rpartition(".")[2] if isinstance(sampler, Mapping) else KEY_SAMPLER
    wrong = isinstance(kind, type) and issubclass(kind, ImageDataset) and name != KEY_SAMPLER
    if wrong and not found.has_problem("train_dataloader.sampler"):
        found.problem("train_dataloader.sampler", f"found {name}; {WANTS_KEYS}")
    for name in LINKED:
        needed = name in arguments and arguments[name].default is REQUIRED
        if needed and name not in dataset and not content.get(name):
            found.problem(name, f"missing, {dataset['type']} (train_dataloader.dataset) needs it")


def check_collation(found: Walk, function: Any) -> None:
    """Report one of MMEngine's functions, which make no :class:`densessl.data.batch.Batch`."""
    path, name = "train_dataloader.collate_fn", function.get("type") if isinstance(function, Mapping) else None
    if found.has_problem(path):
        return
    try:
        kind = find(mmengine.FUNCTIONS, name, SCOPE) if name is not None else None
    except UnknownType:
        return  # reported by the walk
    if kind is None or kind.__module__.partition(".")[0] == "mmengine":
        shown = "missing" if kind is None else f"found {name!r}"
        found.problem(path, f"{shown}, expected dict(type='densessl.collate_views')")


def check_detector(found: Walk, model: Mapping[str, Any]) -> None:
    """Report problems in the config of the pretrained detector, and in the changes to it."""
    options = model.get("options") or {}
    stock = found.attempt("model.detector", lambda: stock_model(model["detector"]))
    if stock is None:
        return
    for name in options if isinstance(options, Mapping) else ():
        *path, last = str(name).split(".")
        node: Any = stock
        for part in path:
            node = node.get(part) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping):
            found.problem(f"model.options.{name}", f"the detector's config has no dict at {'.'.join(path)}")
            return
        near = nearest(last, node) if last not in node and "type" not in node else []
        if near:  # without a type, only its present keys show what a dict may hold
            found.problem(f"model.options.{name}", f"unknown; did you mean {' or '.join(near)}?")
    changed = found.attempt("model.detector", lambda: pretraining_model(stock, options))
    if changed is not None:
        problem = load_scope("mmdet")
        inner = Walk("mmdet", problems=found.problems)
        if problem:
            found.problem("model.detector", problem)
        else:
            inner.visit("model.detector", changed, Argument(DETECTOR, REQUIRED, "", True))


def all_views(found: Walk, content: Mapping[str, Any]) -> list[View] | None:
    """The views of an image, with ``repeat`` expanded; None if one of them has a problem."""
    stated = content.get("views")
    if not isinstance(stated, Sequence) or found.has_problem("views"):
        return None
    views = []
    for number, view in enumerate(stated):
        specs = found.attempt(f"views.{number}", lambda view=view: expand_views([view]))
        if specs is None:
            return None
        views += [View(f"views.{number}", spec) for spec in specs]
    return views


def check_view(found: Walk, view: View) -> None:
    """Report crops without area, and crops too small for their own operations."""
    if view.spec.scale[1] == 0:
        found.problem(f"{view.path}.scale", f"found {view.spec.scale}, expected a largest share above 0")
    width, height = view.spec.width_height
    for config in view.spec.photometric:
        operation = found.attempt(f"{view.path}.photometric", lambda config=config: AUGMENTATIONS.build(config))
        radius = getattr(operation, "radius", None)
        if isinstance(radius, int) and min(width, height) <= radius:
            found.problem(
                f"{view.path}.size",
                f"found {width}x{height} pixels, expected more than {radius}, the radius of {config['type']}'s kernel",
            )


def is_two_branch(model: Mapping[str, Any]) -> bool:
    """Whether a model is a :class:`densessl.model.TwoBranch`."""
    try:
        kind = find(MODELS, model.get("type"), SCOPE)
    except UnknownType:
        return False
    return isinstance(kind, type) and issubclass(kind, TwoBranch)


def check_two_branch(found: Walk, model: Mapping[str, Any], views: list[View], regions: Any) -> None:
    """Report branch, objectives and views that do not fit together."""
    if not model["objectives"]:
        found.problem("model.objectives", "found none, expected at least one")
    with without_memory():
        branch = a_branch(found, model["online"])
        names: set[str] = set()
        for number, config in enumerate(model["objectives"]):
            path = f"model.objectives.{number}"
            if not isinstance(config, Mapping):
                continue
            config = {key: 1 if value == AUTO else value for key, value in config.items()}
            objective = found.attempt(path, lambda config=config: OBJECTIVES.build(config))
            if objective is None:
                continue
            if objective.name in names:
                found.problem(
                    f"{path}.name", f"two objectives are named {objective.name!r}; give each a `name` of its own"
                )
            names.add(objective.name)
            check_objective(found, path, objective, branch, views, regions)


def a_branch(found: Walk, online: Mapping[str, Any]) -> Branch | None:
    """The online branch. None if there is a problem, or if the backbone is another library's, which may not build on
    the ``meta`` device."""
    try:
        if not is_ours(find(MODELS, online["backbone"]["type"], SCOPE)):
            return None
        return build_branch(online)
    except (DensesslError, ValueError, TypeError) as error:
        found.problem("model.online", str(error))
    except Exception:
        pass
    return None


def check_objective(
    found: Walk, path: str, objective: Objective, branch: Branch | None, views: list[View], regions: Any
) -> None:
    """Report what an objective needs and does not find."""
    plan = objective.plan()
    numbers = sorted({view for forward in plan for view in forward.views if isinstance(view, int)})
    absent = [number for number in numbers if not 0 <= number < len(views)]
    if absent:
        found.problem(
            f"{path}.views",
            f"view {absent[0]} is asked for; `views` gives {len(views)}, counted from 0 with `repeat` applied",
        )
        return
    for forward in plan:
        check_forward(found, path, forward, branch, views)
    if not found.has_problem("regions"):
        for reason in objective.unmet([view.spec for view in views], regions):
            found.problem(path, reason)
    if branch is not None and found.attempt(path, lambda: checked_plan(objective, branch)) is not None:
        found.attempt(path, lambda: objective.projectors(branch.channels))


def check_forward(found: Walk, path: str, forward: Forward, branch: Branch | None, views: list[View]) -> None:
    """Report what a forward pass needs of its views and of the backbone, and does not find."""
    passed = [views[view] for view in forward.views if isinstance(view, int)]
    sizes = {view.spec.width_height for view in passed}
    if len(sizes) > 1:
        found.problem(
            f"{path}.views", f"views {forward.views} share a pass, expected one size; they have {sorted(sizes)}"
        )
    side = getattr(branch.backbone, "patch_size", None) if branch is not None else None
    for view in passed:
        width, height = view.spec.width_height
        if isinstance(side, int) and (width % side or height % side):
            found.problem(
                f"{view.path}.size",
                f"found {width}x{height} pixels, expected a multiple of {side} (model.online.backbone.patch_size)",
            )
        if forward.keep is None:
            continue
        if view.spec.mask is None:
            found.problem(f"{view.path}.mask", f"missing, {path} masks this view")
        elif branch is not None and side is None:
            found.problem(
                f"{view.path}.mask",
                f"a masked view needs a transformer; model.online.backbone is a {type(branch.backbone).__name__}",
            )
        elif isinstance(side, int) and view.spec.mask["patch_size"] != side:
            found.problem(
                f"{view.path}.mask.patch_size",
                f"found {view.spec.mask['patch_size']}, expected {side} (model.online.backbone.patch_size)",
            )


@contextmanager
def without_memory() -> Iterator[None]:
    """Build what is inside on the ``meta`` device: tensors have shapes but no values. The random state is kept."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"), torch.no_grad():
        yield
