"""Backbones by config: densessl's own, MMDetection's (``mmdet.*``) and timm's (``timm.*``)."""

import copy
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from densessl.constraints import Config
from densessl.errors import SettingError
from densessl.extras import import_extra
from densessl.registry import MODELS, SCOPE
from densessl.wording import suggestion

BackboneConfig = Annotated[dict, Config(MODELS)]  # of :func:`build_backbone`
PROBE_SIZE = 64  # pixels; two cells of the usual coarsest stride, 32


def build_backbone(cfg: Mapping[str, Any]) -> nn.Module:
    """Build a backbone, randomly initialised.

    Args:
        cfg: ``dict(type=..., **arguments)``. Types: a name registered in ``densessl.registry.MODELS`` (``ResNet``),
            ``mmdet.NAME`` (``mmdet.SwinTransformer``), or ``timm.NAME``: ``timm.create_model(NAME, features_only=True,
            **arguments)``, which takes ``out_indices``.

    Returns:
        A module that maps images (N, 3, H, W) to a tuple or list of maps (N, C, h, w), with the attributes
        ``out_channels`` and ``out_strides``, tuples with one entry for each map. Its keys are those of its library.

    Raises:
        SettingError: the type is unknown (the message has the nearest), or the config would download pretrained
            weights.
        MissingPackage: mmdet or timm is not installed.
    """
    arguments = copy.deepcopy(dict(cfg))
    name = arguments.pop("type", None)
    for key, value in _pretrained(arguments):
        raise SettingError(
            f"backbone {name}: {key}={value!r} would download weights and unpickle them: remove it, and start from a "
            "file with --init FILE, which reads tensors only"
        )
    library, _, rest = str(name).rpartition(".")
    if library == "timm":
        backbone = _build_timm(rest, arguments)
    else:
        if library == "mmdet":
            import_extra("mmdet", f"backbone {name}")
        backbone = _build_registered(name, arguments)
    _describe(backbone)
    return backbone


def _pretrained(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Entries of a config that make mm* packages and timm load weights during construction."""
    if isinstance(value, Mapping):
        if value.get("type") == "Pretrained":
            yield path, dict(value)
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            if (key == "pretrained" and item) or (key == "checkpoint_path" and item):
                yield inner, item
            yield from _pretrained(item, inner)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _pretrained(item, f"{path}[{i}]")


def _build_registered(name: Any, arguments: dict[str, Any]) -> nn.Module:
    if name is None or MODELS.get(name) is None:
        names = list(MODELS.module_dict)
        if str(name).startswith("mmdet."):
            from mmdet.registry import MODELS as MMDET_MODELS  # of the det extra

            names = [f"mmdet.{key}" for key in MMDET_MODELS.module_dict]
        raise SettingError(f"backbone type {name!r} is unknown; {suggestion(name, names)}")
    # Names without a prefix are densessl's, whatever the default scope of the process.
    scope = {} if "." in str(name) else {"_scope_": SCOPE}
    backbone = MODELS.build({"type": name, **scope, **arguments})
    # OpenMMLab's modules are initialised by a second call, which must come before the target copies the branch.
    if hasattr(backbone, "init_weights"):
        backbone.init_weights()
    return backbone


def _build_timm(name: str, arguments: dict[str, Any]) -> nn.Module:
    timm = import_extra("timm", f"backbone timm.{name}")
    if not timm.is_model(name):
        raise SettingError(
            f"backbone type 'timm.{name}' is unknown; "
            + suggestion(f"timm.{name}", [f"timm.{known}" for known in timm.list_models()])
        )
    backbone = timm.create_model(name, **{"features_only": True, **arguments, "pretrained": False})
    if getattr(backbone, "output_fmt", "NCHW") == "NHWC":  # Swin and similar backbones
        backbone.register_forward_hook(_channels_second)
    backbone.out_channels = tuple(backbone.feature_info.channels())
    backbone.out_strides = tuple(backbone.feature_info.reduction())
    return backbone


def _channels_second(backbone: nn.Module, images: tuple[Tensor], maps: list[Tensor]) -> list[Tensor]:
    return [level.permute(0, 3, 1, 2) for level in maps]


def _describe(backbone: nn.Module) -> None:
    """Set ``out_channels`` and ``out_strides`` if the backbone does not have them for each of its maps.

    They are read from the maps of a blank image, computed in evaluation mode so that no statistics change.
    """
    known = [getattr(backbone, name, None) for name in ("out_channels", "out_strides")]
    if all(isinstance(value, list | tuple) for value in known):
        backbone.out_channels, backbone.out_strides = map(tuple, known)
        return
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    first = next(backbone.parameters())
    try:
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, PROBE_SIZE, PROBE_SIZE, dtype=first.dtype, device=first.device))
    finally:
        for module, mode in modes:  # not backbone.train(): some modules may be frozen
            module.training = mode
    backbone.out_channels = tuple(level.shape[1] for level in maps)
    backbone.out_strides = tuple(PROBE_SIZE // level.shape[-1] for level in maps)
