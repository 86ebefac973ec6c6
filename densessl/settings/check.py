"""Checks the settings of a run before data is read, and reports all problems at once."""

import importlib
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS

from densessl.configs import is_pretraining
from densessl.errors import SettingError
from densessl.extras import missing
from densessl.settings import lookup
from densessl.settings.loops import LINKED
from densessl.settings.pretraining import check_together
from densessl.settings.run import top_level
from densessl.settings.walk import Setting, Walk
from densessl.signatures import arguments_of
from densessl.wording import nearest

# MMEngine's hooks, which every run has unless its config removes them.
DEFAULT_HOOKS = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")
# Packages that MMEngine's backends of a visualizer import when they write for the first time.
BACKENDS = {
    "WandbVisBackend": ("wandb",),
    "TensorboardVisBackend": ("tensorboard",),
    "MLflowVisBackend": ("mlflow",),
    "ClearMLVisBackend": ("clearml",),
    "NeptuneVisBackend": ("neptune",),
    "DVCLiveVisBackend": ("dvclive", "pygit2"),
    "AimVisBackend": ("aim",),
}
ALMOST = 0.88  # a top-level name at least this similar to a known one is a misspelling, not a variable


def require(cfg: Config, given: Collection[str] = ()) -> None:
    """Require that the settings of a run are valid and fit together.

    Args:
        cfg, given: see :func:`check_config`.

    Raises:
        SettingError: there are problems; the message has a line for each.
    """
    problems = check_config(cfg, given)
    if problems:
        raise SettingError("\n".join(problems))


def check_config(cfg: Config, given: Collection[str] = ()) -> list[str]:
    """Find the problems in the settings of a run. No data is read, and no network is built in memory.

    Args:
        cfg: the whole config. Top-level variables of its file that only help to write the rest are allowed.
        given: dotted names of the entries from the command line, which must not be such variables.

    Returns:
        One line for each problem: the key path, what was found, what was expected, and the nearest names.
    """
    return walk(cfg, given).problems


def walk(cfg: Config, given: Collection[str] = ()) -> Walk:
    """Collect all settings of a run and all problems in them. Arguments are those of :func:`check_config`."""
    content = without_copies(cfg.to_dict())
    scope = content.get("default_scope")
    found = Walk(scope if scope and isinstance(scope, str) else "mmengine")
    problem = lookup.load_scope(found.scope)
    if problem:  # then no class can be found
        found.problem("default_scope", problem)
        return found
    import_modules(found, content.get("custom_imports"))
    schema = top_level()
    for key, value in content.items():
        if key == "view" and "views" in content:
            continue  # a variable, left over from a loop over the views
        if key == "demo" and isinstance(value, Mapping):  # its values are checked where they are applied
            found.settings.append(Setting(key, value, schema.arguments[key]))
        elif key in schema.arguments:
            found.visit(key, value, schema.arguments[key])
        elif is_slip(key, schema.arguments, given):
            found.problem(key, schema.unknown(key))
    if "model" not in content:
        found.problem("model", "missing, expected the config of a model")
    if is_pretraining(cfg):
        check_together(found, content)
    check_evaluation(found, content)
    check_hook_names(found, content.get("default_hooks"))
    check_best(found, content)
    check_backends(found, content.get("visualizer"))
    check_optimiser(found, content.get("optim_wrapper"))
    return found


def check_evaluation(found: Walk, content: Mapping[str, Any]) -> None:
    """Report a validation or test of which the config has only some of the three parts."""
    for name in ("val", "test"):
        parts = [f"{name}_{part}" for part in ("dataloader", "cfg", "evaluator")]
        given = [part for part in parts if content.get(part) is not None]
        sound = given and not any(found.has_problem(part) for part in given)  # what is wrong in a part comes first
        for part in parts if sound else ():
            if part not in given:
                found.problem(part, f"missing, {' and '.join(given)} {'need' if len(given) > 1 else 'needs'} it")


def check_hook_names(found: Walk, hooks: Any) -> None:
    """Report names in ``default_hooks`` that are None but do not name one of MMEngine's hooks."""
    for name, hook in hooks.items() if isinstance(hooks, Mapping) else ():
        path = f"default_hooks.{name}"
        if hook is None and name not in DEFAULT_HOOKS and not found.has_problem(path):
            found.problem(path, f"found None, which removes one of MMEngine's hooks: {', '.join(DEFAULT_HOOKS)}")


def check_best(found: Walk, content: Mapping[str, Any]) -> None:
    """Report that the best checkpoint is to be kept, but no validation says which one it is."""
    hooks = content.get("default_hooks")
    hook = hooks.get("checkpoint") if isinstance(hooks, Mapping) else None
    best = hook.get("save_best") if isinstance(hook, Mapping) else None
    if best is not None and content.get("val_cfg") is None:
        path = "default_hooks.checkpoint.save_best"
        found.problem(path, f"found {best!r}, expected None: the config has no validation (val_cfg) that measures it")


def check_backends(found: Walk, visualizer: Any) -> None:
    """Report backends of the visualizer whose package is not installed."""
    backends = visualizer.get("vis_backends") if isinstance(visualizer, Mapping) else None
    for number, backend in enumerate(backends if isinstance(backends, list | tuple) else ()):
        name = str(backend.get("type") if isinstance(backend, Mapping) else None).rpartition(".")[2]
        for package in BACKENDS.get(name, ()):
            if find_spec(package) is None:
                found.problem(f"visualizer.vis_backends.{number}.type", str(missing(package, name)))


def check_optimiser(found: Walk, wrapper: Any) -> None:
    """Report arguments that the optimiser lacks, and what its constructor rejects, when called with a single
    parameter."""
    config = wrapper.get("optimizer") if isinstance(wrapper, Mapping) else None
    if not isinstance(config, Mapping) or found.has_problem("optim_wrapper.optimizer"):
        return
    arguments = {key: value for key, value in config.items() if key not in ("type", "_scope_")}
    try:
        kind = lookup.find(OPTIMIZERS, config.get("type"), config.get("_scope_", found.scope))
    except lookup.UnknownType:
        return  # reported by the walk
    valid = arguments_of(kind)
    strange = [key for key in arguments if valid is not None and key not in valid]
    for key in strange:
        names = ", ".join(sorted(set(valid) - {"params"}))
        found.problem(
            f"optim_wrapper.optimizer.{key}",
            f"unknown for {kind.__name__} (valid: {names}). If only the type was changed, write the whole optimiser: "
            f"--set \"optim_wrapper.optimizer=dict(_delete_=True, type='{kind.__name__}', lr=…)\"",
        )
    if strange:
        return
    found.attempt("optim_wrapper.optimizer", lambda: kind([torch.zeros(1, requires_grad=True)], **arguments))


def is_slip(key: str, known: Collection[str], given: Collection[str]) -> bool:
    """Whether an unknown top-level name is a mistake. It is if it comes from the command line. In a file it may be a
    variable, unless it is almost a known name."""
    if any(name == key or name.startswith(f"{key}.") for name in given):
        return True
    return bool(nearest(key, known, 1, ALMOST))


def import_modules(found: Walk, settings: Any) -> None:
    """Import the modules of ``custom_imports``, so that their classes are registered."""
    imports = settings.get("imports") if isinstance(settings, Mapping) else None
    names = [imports] if isinstance(imports, str) else imports if isinstance(imports, list | tuple) else ()
    for number, name in enumerate(names):
        if not isinstance(name, str):
            continue  # reported by the walk
        path = "custom_imports.imports" + ("" if isinstance(imports, str) else f".{number}")
        try:
            importlib.import_module(name)
        except Exception as error:  # the user's module may raise any error
            if not (isinstance(error, ImportError) and settings.get("allow_failed_imports")):
                found.problem(path, f"found {name!r}, which cannot be imported: {reason(error, name)}")


def reason(error: Exception, name: str) -> str:
    """Why a module cannot be imported, in words."""
    if not isinstance(error, ImportError):
        return f"{type(error).__name__}: {error}"
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package and find_spec(package) is None:
        return "there is no such module" if name.partition(".")[0] == package else str(missing(package, "it"))
    return str(error)


def without_copies(content: dict[str, Any]) -> dict[str, Any]:
    """A config without the entries of data set and preprocessor that only repeat the top level."""
    content = dict(content)
    for holder, inner in (("train_dataloader", "dataset"), ("model", "data_preprocessor")):
        outer = content.get(holder)
        if isinstance(outer, Mapping) and isinstance(outer.get(inner), Mapping):
            rest = {k: v for k, v in outer[inner].items() if k not in LINKED or v != content.get(k)}
            content[holder] = {**outer, inner: rest}
    return content
