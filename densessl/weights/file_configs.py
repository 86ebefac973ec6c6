"""The check that every config from a file passes before anything is built from it.

MMEngine's registries import any dotted name, its ``Config.fromfile`` runs the Python it reads, and many classes of the
OpenMMLab libraries load a file named in an argument. A config in a checkpoint, an export or any other file is therefore
checked here first. It may name

* classes registered by densessl, by MMEngine and mmcv (``BN``, ``Conv2d``) and, where installed, by mmdet, each by its
  registered name, with its scope (``mmdet.SwinTransformer``) or without;
* models of timm (``timm.resnet50``);
* stock configs of mmdet and mmseg (``mmdet::detr/detr_r50_8xb2-150e_coco``).

Everything else must be plain data (numbers, words, lists and dicts), under argument names that the class accepts.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from keyword import iskeyword
from typing import Any

import mmengine.registry as mmengine

from densessl.branches.norm import NORMS
from densessl.errors import CheckpointError, UnsafeCheckpointError
from densessl.registry import MODELS, SCOPE
from densessl.signatures import arguments_of
from densessl.wording import nearest, suggestion

STOCK = re.compile(r"(mmdet|mmseg)::[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)+(\.py)?")
DEEPEST = 16  # most nested levels of dicts and lists; a transformer's config has seven
MOST = 5000  # most entries in all
# A word of a config: "on_output", "pytorch". Paths, URLs and templates of a config language do not match.
WORD = re.compile(r"[A-Za-z0-9_ -]{0,64}")
# Names of arguments that may make a class load a file: Swin's `pretrained`, a distilling detector's `teacher_config`.
# Numbers under such names are sizes (`pretrain_img_size`).
LOADS = re.compile(r"(pretrain|checkpoint|ckpt|teacher|lang(uage)?_model|cache|file|path|dir|url|root|config|weights)")
# Names of registered classes that load or evaluate an argument whose name is not among LOADS.
LOADERS = ("PretrainedInit", "BertModel", "Detectron2Wrapper", "CameraMotionCompensation")
# Of ASCII letters only: Python reads other letters of a name in a config as their nearest ASCII ones.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
# What a class is registered as; a config's place determines which one is expected.
MODEL, UTILITY, INITIALISER = "a model's class", "a utility of detectors", "an initialiser"


def stock_name(name: Any, source: str) -> str:
    """Return a config's name found in a file, if it names a stock config.

    Raises:
        UnsafeCheckpointError: it is anything else, such as the path of a config file, which would be run.
    """
    if isinstance(name, str) and STOCK.fullmatch(name):
        return name
    raise UnsafeCheckpointError(
        f"{source} names the config {_shown(name)}; a file may name stock configs only (mmdet::NAME, mmseg::NAME), "
        "since configs are programs. Name the config yourself, if you trust it (--detector FILE)"
    )


def checked(config: Any, source: str, key: str = "", scope: str = SCOPE) -> dict[str, Any]:
    """Check the config of a module that was found in a file, and return a copy of it.

    Args:
        config: a dict with a ``type``.
        source: name of the file, for errors.
        key: place of the config in the file, for errors.
        scope: library of class names without a scope, besides MMEngine: ``"densessl"`` or ``"mmdet"``.

    Raises:
        UnsafeCheckpointError: the config names an unregistered class, has an argument that its class does not accept,
            or one that would load a file. Nothing was imported or built.
    """
    if not isinstance(config, Mapping) or "type" not in config:
        raise _refusal(source, key, config, "a dict with a 'type'")
    _expect(config["type"], (MODEL,), source, key, scope)
    return _copy(config, source, key, scope)


def checked_options(
    options: Any, source: str, model: Mapping[str, Any], key: str = "options", scope: str = "mmdet"
) -> dict[str, Any]:
    """Check changes to a stock config's ``model``, by dotted name, that were found in a file, and return a copy of
    them.

    Args:
        options, source, key: as for :func:`checked`.
        model: the stock model that they change; its classes determine the valid arguments.
        scope: library of the model's classes.

    Raises:
        UnsafeCheckpointError: as :func:`checked`, or the model has no such entry.
    """
    if not isinstance(options, Mapping):
        raise _refusal(source, key, options, "a dict")
    copied = {}
    for name, value in options.items():
        here = f"{key}[{_shown(name)}]"
        if not isinstance(name, str) or not all(map(_is_name, name.split("."))):
            raise _refusal(source, here, name, "a dotted name of an argument")
        *path, last = name.split(".")
        node = model
        for part in path:
            node = node.get(part) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping):
            raise _refusal(source, here, name, "an entry of the detector's config")
        copied[name] = _entry(last, value, source, here, scope)
        _expect_as_before(last, value, node, source, here, scope)
        if last != "type" and last not in node:
            changed = options.get(".".join([*path, "type"]), node.get("type"))
            _check_arguments([last], changed, source, here, scope)
    return copied


def _copy(config: Mapping, source: str, key: str, scope: str) -> dict[str, Any]:
    plain = {name: _entry(name, value, source, f"{key}.{name}".lstrip("."), scope) for name, value in config.items()}
    if "type" in plain:
        _check_arguments(plain.keys() - {"type"}, plain["type"], source, key, scope)
    _check_size(config, source, key)
    return plain


def _entry(name: Any, value: Any, source: str, key: str, scope: str, depth: int = 0) -> Any:
    """Check an argument, by its name and its value."""
    if depth > DEEPEST:
        raise _refusal(source, key, "…", f"at most {DEEPEST} dicts and lists in each other")
    if not _is_name(name):
        raise _refusal(source, key, name, "an argument's name")
    if name == "type":
        return _known(value, source, key, scope)
    fetches = value is True and "pretrained" in name.lower()
    if LOADS.search(name.lower()) and (fetches or not _of_numbers(value)):
        raise _refusal(source, key, value, "no file to load, or None")
    return _value(value, source, key, scope, depth)


def _value(value: Any, source: str, key: str, scope: str, depth: int) -> Any:
    if value is None or type(value) in (bool, int, float):
        return value
    if isinstance(value, str) and WORD.fullmatch(value):
        return str(value)
    if isinstance(value, list | tuple):
        if depth > DEEPEST:
            raise _refusal(source, key, "…", f"at most {DEEPEST} dicts and lists in each other")
        return [_value(entry, source, f"{key}[{i}]", scope, depth + 1) for i, entry in enumerate(value)]
    if isinstance(value, Mapping):
        plain = {name: _entry(name, entry, source, f"{key}.{name}", scope, depth + 1) for name, entry in value.items()}
        if "type" in plain:
            _check_arguments(plain.keys() - {"type"}, plain["type"], source, key, scope)
        return plain
    raise _refusal(source, key, value, "plain data: a number, a word, a list or a dict")


def _is_name(name: Any) -> bool:
    """Whether a name can be that of an argument, and stands in Python code as it is."""
    return isinstance(name, str) and NAME.fullmatch(name) is not None and not iskeyword(name)


def _of_numbers(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_of_numbers, value))
    return value is None or type(value) in (bool, int, float)


def _check_size(config: Any, source: str, key: str) -> None:
    left, seen = [config], 0
    while left:
        value = left.pop()
        seen += 1
        if seen > MOST:
            raise _refusal(source, key, "more", f"at most {MOST} entries")
        left += value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()


def _known(name: Any, source: str, key: str, scope: str) -> str:
    """Return a ``type``, if it is the name of a registered class."""
    if not isinstance(name, str) or _find(name, scope) is None:
        near = nearest(name, [known for registry in _registries(scope) for known in registry.module_dict])
        raise UnsafeCheckpointError(
            f"{source}: {key or 'type'} names {_shown(name)}, which is no registered class"
            f"{f' (did you mean {near[0]}?)' if near else ''}; a file's classes are never imported by name, since that "
            "runs code"
        )
    return name


def _find(name: str, scope: str) -> Any:
    """Return the class or function registered under a name, looked up in tables only; None if there is none. Return
    True for timm's models, which take any arguments."""
    library, dot, rest = name.rpartition(".")
    if library == "timm":
        return True if _timm_has(rest) else None
    if dot and library not in (SCOPE, "mmdet"):
        return None
    if name in NORMS and scope == SCOPE:
        return True
    registries = _registries(library) if dot else _registries(scope)
    return next((registry.module_dict[rest] for registry in registries if rest in registry.module_dict), None)


def _kinds(name: Any, scope: str) -> set[str]:
    """Return what a known ``type`` is registered as; empty for timm's models and for norms."""
    library, dot, rest = str(name).rpartition(".")
    kinds = {"weight initializer": INITIALISER, "task util": UTILITY}
    registries = () if library == "timm" else _registries(library if dot else scope)
    return {kinds.get(registry.name, MODEL) for registry in registries if rest in registry.module_dict}


def _expect(name: Any, expected: Iterable[str], source: str, key: str, scope: str) -> None:
    """Refuse a class that is registered as something else than its place takes. MMEngine looks for a name in the
    registry of the place, and imports the module of that name if it is not there."""
    kinds = _kinds(_known(name, source, key, scope), scope)
    if kinds.isdisjoint(expected) and (kinds or name in NORMS):
        raise _refusal(source, key, name, f"the name of {' or '.join(expected)}")


def _expect_as_before(last: str, value: Any, node: Mapping[str, Any], source: str, key: str, scope: str) -> None:
    """Refuse a change of a stock config's class to one that is registered as something else."""
    before, after = (node.get("type"), value) if last == "type" else (node.get(last), value)
    before, after = (each.get("type") if isinstance(each, Mapping) else each for each in (before, after))
    changes = last == "type" or isinstance(value, Mapping)
    if changes and isinstance(before, str) and isinstance(after, str):
        _expect(after, sorted(_kinds(before, scope) or {MODEL}), source, key, scope)


def _registries(scope: str) -> Iterator[mmengine.Registry]:
    """Yield the registries that a scope finds a model's classes in: its own, and MMEngine's."""
    MODELS.import_from_location()
    if scope == SCOPE:
        yield MODELS
    elif find_spec("mmdet") is not None:
        from mmdet.registry import MODELS as OF_MMDET  # of the det extra
        from mmdet.registry import TASK_UTILS

        for registry in (OF_MMDET, TASK_UTILS):
            registry.import_from_location()
            yield registry
    yield from (mmengine.MODELS, mmengine.TASK_UTILS, mmengine.WEIGHT_INITIALIZERS)


def _timm_has(name: str) -> bool:
    if find_spec("timm") is None:
        return False
    import timm  # of the det extra

    return "." not in name and timm.is_model(name)


def _check_arguments(names: Iterable[str], type_: Any, source: str, key: str, scope: str) -> None:
    """Refuse arguments that the signature of the class or function does not have."""
    kind = _find(type_, scope) if isinstance(type_, str) else None
    if kind is None or kind is True:
        return
    if getattr(kind, "__name__", "") in LOADERS:
        raise _refusal(source, key, type_, "a class that loads no file")
    accepted = arguments_of(kind)
    if accepted is None:
        return
    for name in sorted(names):
        # mmcv's layer builders take these arguments themselves.
        if name not in accepted and name not in ("requires_grad", "inplace", "fallback_on_stride"):
            raise UnsafeCheckpointError(
                f"{source}: {key}.{name}: {type_} has no such argument; {suggestion(name, accepted)}"
            )


@contextmanager
def building(source: str) -> Iterator[None]:
    """Wrap the construction of a network from a checked config, whose numbers may still describe no valid network.

    Meanwhile, MMEngine's registries import no module by the name of a class that they do not have.

    Raises:
        CheckpointError: any error inside the block, in one line.
    """
    registries = sys.modules[mmengine.Registry.__module__]
    importer = registries.get_object_from_string
    registries.get_object_from_string = lambda name: None
    try:
        yield
    except (CheckpointError, ImportError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        more = f" … and {len(lines) - 2} more" if len(lines) > 2 else ""  # of a line for each tensor that does not fit
        raise CheckpointError(
            f"{source} describes a network that cannot be built, or that its weights do not fit: "
            f"{' '.join(lines[:2]):.400}{more}"
        ) from error
    finally:
        registries.get_object_from_string = importer


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"


def _refusal(source: str, key: str, found: Any, expected: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(f"{source}: {key or 'its config'}: found {_shown(found)}, expected {expected}")
