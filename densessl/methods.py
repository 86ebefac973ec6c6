"""The methods that densessl ships: which config pretrains which backbone with which method."""

import ast
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from densessl.branches.backbone import build_backbone
from densessl.branches.resnet import DEPTHS
from densessl.configs import load_config, shipped_configs
from densessl.data.views import ViewSpec
from densessl.errors import SettingError
from densessl.wording import choose, suggestion

# Endings of config names, and the backbones that they stand for.
BACKBONES = {"r18": "resnet18", "r50": "resnet50", "vit_tiny": "vit_tiny", "vit_s": "vit_s", "vit_b": "vit_b"}
# Folders to search for a method, in this order: published recipes, small ones, mixtures.
FOLDERS = ("", "small/", "mix/")
# A recipe on COCO represents its method if there is none on ImageNet.
_NAME = re.compile(rf"(?P<method>.+)_(?P<backbone>{'|'.join(BACKBONES)})(_coco)?")


@dataclass(frozen=True)
class Method:
    """A pretraining method that densessl ships.

    Attributes:
        name: name of the method, for :func:`densessl.pretrain`.
        summary: first paragraph of its config's docstring.
        configs: names of its configs by backbone.
    """

    name: str
    summary: str
    configs: dict[str, str] = field(default_factory=dict)


def list_methods() -> dict[str, Method]:
    """All methods by name, in alphabetical order."""
    methods: dict[str, Method] = {}
    for folder in FOLDERS:
        for name, file in shipped_configs().items():
            where, _, stem = name.rpartition("/")
            match = _NAME.fullmatch(stem)
            if match and where == folder.rstrip("/"):
                method = methods.setdefault(match["method"], Method(match["method"], _summary(file)))
                method.configs.setdefault(BACKBONES[match["backbone"]], name)
    return {name: methods[name] for name in sorted(methods)}


def default_backbone(method: Method) -> str:
    """The backbone of a method's published recipe."""
    return next((name for name in ("resnet50", "vit_b") if name in method.configs), next(iter(method.configs)))


def _summary(file: Path) -> str:
    """The first paragraph of a config's docstring, in one line."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).rstrip(".")


def method_config(method: str, backbone: str | Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
    """Find the config of a method with a given backbone.

    Args:
        method: name of a method (``"pixpro"``), or of a config (``"pixpro_r50_400e"``, a file).
        backbone: ``"resnet18"``, ``"resnet34"`` …, ``"vit_s"``, any of ``"timm.NAME"`` and ``"mmdet.NAME"``, or a
            backbone's config, ``dict(type="mmdet.ResNet", depth=18)``; None for the method's own.

    Returns:
        The config's name, and changes to it by dotted name.

    Raises:
        SettingError: there is no such method, or it does not work with that backbone.
    """
    methods = list_methods()
    if method not in methods and (method in shipped_configs() or method.endswith(".py")):
        name, configs = method, {}
    else:
        chosen = methods[choose("method", method, methods)]
        configs = chosen.configs
        name = configs[default_backbone(chosen)]
    if backbone is None:
        return name, {}
    if isinstance(backbone, str) and backbone in configs:
        return configs[backbone], {}
    online = load_config(name).model.get("online")
    if online is None:
        raise SettingError(f"backbone: {name} pretrains a whole detector, whose backbone its `model.detector` names")
    return name, _with_backbone(online.backbone, name, backbone, configs)


def _with_backbone(
    own: Mapping[str, Any], name: str, backbone: str | Mapping[str, Any], configs: Iterable[str]
) -> dict[str, Any]:
    """Return the changes that replace the backbone ``own`` of the config ``name``."""
    if not isinstance(backbone, str | Mapping):
        raise SettingError(f"backbone: found {backbone!r}, expected a name, such as 'resnet18', or a dict(type=…)")
    if isinstance(backbone, str):
        resnet = re.fullmatch(r"resnet(\d+)", backbone)
        if own["type"] == "ResNet" and resnet and int(resnet[1]) in DEPTHS:
            backbone = dict(type="ResNet", depth=int(resnet[1]))
        elif backbone.partition(".")[0] in ("timm", "mmdet"):
            backbone = dict(type=backbone)
        else:
            known = [f"resnet{depth}" for depth in DEPTHS] if own["type"] == "ResNet" else []
            known = [*known, *configs, "timm.NAME", "mmdet.NAME"]
            raise SettingError(f"backbone {backbone!r} does not go with {name}; {suggestion(backbone, set(known))}")
    if backbone.get("type", own["type"]) == own["type"]:
        return {f"model.online.backbone.{key}": value for key, value in backbone.items()}
    return {"model.online.backbone": {"_delete_": True, **_in_place_of(own, name, backbone)}}


def _in_place_of(own: Mapping[str, Any], name: str, backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a backbone of another type that replaces ``own``.

    Objectives name levels by their index among the maps, so ``out_indices`` is set to give maps of the same strides; if
    only one map is needed and none has its stride, the last map is used. MMDetection's ResNet, made for fine-tuning,
    does not train its batch norms by default; here it does.
    """
    kind, config = backbone["type"], dict(backbone)
    try:
        with torch.random.fork_rng(devices=[]), quiet():
            wanted, built = build_backbone(own).out_strides, build_backbone(config)
    except TypeError as error:
        raise SettingError(f"backbone {kind}: {error}; give arguments by backbone=dict(type={kind!r}, …)") from error
    except ValueError as error:
        raise SettingError(str(error)) from error
    if getattr(built, "norm_eval", False):
        config.setdefault("norm_eval", False)
    if "out_indices" in config or tuple(built.out_strides) == tuple(wanted):
        return config
    found = list(built.out_strides)
    if len(wanted) == 1 and wanted[0] not in found:
        wanted = found[-1:]
    indices = getattr(getattr(built, "feature_info", built), "out_indices", None)
    if indices is None or not set(wanted) <= set(found):
        raise SettingError(
            f"backbone {kind}: its maps have strides {found}, the objectives of {name} work on {list(wanted)}; say "
            f"which maps to take: backbone=dict(type={kind!r}, out_indices=…)"
        )
    last = dict(zip(found, indices))
    return {**config, "out_indices": tuple(last[stride] for stride in wanted)}


def size_changes(name: str, size: int) -> dict[str, Any]:
    """Return the changes that set the largest views of the config ``name`` to ``size`` pixels, and smaller views (local
    crops) in proportion.

    Raises:
        SettingError: the config has no square views.
    """
    if isinstance(size, bool) or not isinstance(size, Integral):
        raise SettingError(f"size: found {size!r}, expected a whole number of pixels")
    sizes = [view.get("size", ViewSpec.size) for view in load_config(name).get("views", ())]
    if not sizes or not all(isinstance(each, int) for each in sizes):
        raise SettingError(f"size: {name} has no square views; found {f'sizes {sizes}' if sizes else '`view`'}")
    return {f"views.{number}.size": round(size * each / max(sizes)) for number, each in enumerate(sizes)}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence MMEngine's log of how each tensor was initialised, for a backbone that is built only to inspect it."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)
