"""The methods that densessl ships: which config pretrains which backbone by which method."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densessl.configs import load_config, shipped_configs
from densessl.errors import SettingError
from densessl.wording import choose, suggestion

# How names of configs end, and the backbones these stand for.
BACKBONES = {"r18": "resnet18", "r50": "resnet50", "vit_tiny": "vit_tiny", "vit_s": "vit_s", "vit_b": "vit_b"}
# Where a method is looked for, in this order: published recipes, small ones, mixtures.
FOLDERS = ("", "small/", "mix/")
_NAME = re.compile(rf"(?P<method>.+)_(?P<backbone>{'|'.join(BACKBONES)})")


@dataclass(frozen=True)
class Method:
    """A pretraining that densessl ships.

    Attributes:
        name: of the method, as :func:`densessl.pretrain` takes it.
        summary: first line of its config.
        configs: by backbone, the names of its configs.
    """

    name: str
    summary: str
    configs: dict[str, str] = field(default_factory=dict)


def list_methods() -> dict[str, Method]:
    """All methods by name, in the order of their names."""
    methods: dict[str, Method] = {}
    for folder in FOLDERS:
        for name, file in shipped_configs().items():
            where, _, stem = name.rpartition("/")
            found = _NAME.fullmatch(stem)
            if found and where == folder.rstrip("/"):
                method = methods.setdefault(found["method"], Method(found["method"], _summary(file)))
                method.configs.setdefault(BACKBONES[found["backbone"]], name)
    return {name: methods[name] for name in sorted(methods)}


def default_backbone(method: Method) -> str:
    """The backbone of a method's published recipe."""
    return next((name for name in ("resnet50", "vit_b") if name in method.configs), next(iter(method.configs)))


def _summary(file: Path) -> str:
    """The first paragraph of a config's docstring, in one line."""
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split()).rstrip(".")


def method_config(method: str, backbone: str | None = None) -> tuple[str, dict[str, Any]]:
    """The config of a method with a backbone.

    Args:
        method: name of a method (``"pixpro"``), or of a config (``"pixpro_r50_400e"``, a file).
        backbone: ``"resnet18"``, ``"resnet34"`` …, ``"vit_s"``, or any of ``"timm.NAME"`` and ``"mmdet.NAME"``; None
            for the method's own.

    Returns:
        The config's name, and changes to it by dotted name.

    Raises:
        SettingError: no such method, or it cannot have that backbone.
    """
    methods = list_methods()
    if method not in methods and (method in shipped_configs() or method.endswith(".py")):
        name, configs = method, {}
    else:
        found = methods[choose("method", method, methods)]
        configs = found.configs
        name = configs.get(backbone or "", configs[default_backbone(found)])
    if backbone is None or backbone in configs:
        return name, {}
    return name, _with_backbone(load_config(name), name, backbone)


def _with_backbone(cfg: Config, name: str, backbone: str) -> dict[str, Any]:
    """Changes that give a config another backbone."""
    today = cfg.model.get("online", {}).get("backbone")
    if today is None:
        raise SettingError(f"backbone: {name} pretrains a whole detector, whose backbone its `model.detector` names")
    depth = re.fullmatch(r"resnet(18|34|50|101|152)", backbone)
    if depth and today.type == "ResNet":
        return {"model.online.backbone.depth": int(depth[1])}
    library, dot, _ = backbone.partition(".")
    if dot and library in ("timm", "mmdet"):
        return {"model.online.backbone": {"_delete_": True, "type": backbone}}
    known = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] if today.type == "ResNet" else []
    raise SettingError(
        f"backbone {backbone!r} does not go with {name}; {suggestion(backbone, [*known, 'timm.NAME', 'mmdet.NAME'])}"
    )
