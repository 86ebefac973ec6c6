"""Check that a detector computes what the pretraining did, by comparing their features on one fixed image."""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from densessl.branches.branch import Branch, build_branch
from densessl.branches.vit import ViT
from densessl.errors import ExportError
from densessl.registry import SCOPE
from densessl.weights.file_configs import building, checked
from densessl.weights.fingerprint import Fingerprint, compare, of_model
from densessl.weights.parts import part_of_model
from densessl.weights.read import Source, open_checkpoint, part_configs, parts_in, read_backbone
from densessl.weights.vit_facts import is_vit


def fixed_image(side: int = 96) -> Tensor:
    """Return an image of noise, (1, 3, side, side); always the same."""
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def source_branch(checkpoint: Source, branch: str | None = None, parts: Collection[str] = ()) -> Branch | None:
    """Rebuild the branch in a file (the backbone and the given other parts) from its configs, in evaluation mode.
    Returns None if the file has no configs."""
    checkpoint = open_checkpoint(checkpoint)
    others = {part: state for part, state in parts_in(checkpoint, branch).items() if part in parts}
    states = {"backbone": read_backbone(checkpoint, branch)[0], **others}
    configs = {part: part_configs(checkpoint.meta).get(part) for part in states}
    if not all(configs.values()):
        return None
    configs = {part: checked(config, checkpoint.name, part) for part, config in configs.items()}
    # In the scope in which "ResNet" is ours, even if a detector set another.
    with building(checkpoint.name), DefaultScope.overwrite_default_scope(SCOPE):
        built = build_branch(configs)
        for part, state in states.items():
            getattr(built, part).load_state_dict(state)
    return built.eval()


def require_same_network(
    model: nn.Module, state: Mapping[str, Tensor], fingerprint: Fingerprint, owner: str, kind: str
) -> None:
    """Check that a network has exactly the given tensors by name and shape, and that no fingerprint field differs.

    Args:
        model: May be on the meta device.
        owner, kind: Library and name of its network, for the error message.

    Raises:
        ExportError: The network is another one.
    """
    own = {key: value.shape for key, value in model.state_dict().items()}
    given = {key: value.shape for key, value in state.items()}
    wrong = sorted(key for key in own.keys() | given.keys() if own.get(key) != given.get(key))
    differences, _ = compare(of_model(model), fingerprint)
    if wrong or differences:
        names = [f"{len(wrong)} tensors differ in name or shape: {wrong[:5]}"] * bool(wrong and not differences)
        facts = [f"{field}: found {found}, {owner} has {own}" for field, own, found, _ in differences]
        raise ExportError(f"{owner}'s {kind} is another network: {'; '.join(facts + names)}")


def stage_features(backbone: nn.Module, images: Tensor, **options: Any) -> dict[str, Tensor]:
    """Return the outputs, by name, of the stages ``layer1`` … of any ResNet (N, C, H / stride, W / stride), or of the
    blocks ``blocks.0`` … of any plain ViT (N, L, C), in evaluation mode.

    Hooks take them at the blocks, so it does not matter which maps the backbone returns.

    Args:
        options: arguments of the backbone's forward pass.
    """
    seen: dict[str, Tensor] = {}
    names = [
        f"{name}.{len(stage) - 1}" for name, stage in backbone.named_children() if re.fullmatch("layer[1-4]", name)
    ]
    if is_vit(backbone.state_dict()):
        names = [f"blocks.{i}" for i in range(len(backbone.blocks))]
    handles = [
        backbone.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name in names
    ]
    try:
        with torch.no_grad():
            backbone.eval()  # on its own line: MMDet's ResNet.train returns None
            backbone(images, **options)
    finally:
        for handle in handles:
            handle.remove()
    if "blocks.0" in seen:  # ViTDet's outputs are (N, H, W, C)
        return {name: out.flatten(1, -2) for name, out in seen.items()}
    return {name.partition(".")[0]: out for name, out in seen.items()}


def feature_differences(backbone: nn.Module, checkpoint: Source, branch: str | None = None) -> dict[str, float] | None:
    """Compare a loaded backbone with the branch it came from.

    For a ResNet with dilated instead of strided stages, the pretrained one is dilated in the same way. For a ViT
    without class token, the pretrained one runs without it too. A ViT with windowed attention is compared on an image
    of one window: on others it computes another function, by design.

    Args:
        backbone: The detector's backbone, or timm's model. Left in evaluation mode.
        checkpoint: A checkpoint of densessl or an export, whose ``meta`` has the config of its backbone.

    Returns:
        The largest absolute difference in each stage, or block of a ViT, that both run: all zero if the transfer is
        exact, infinite if sizes differ. None if the checkpoint has no config of its backbone, or one of the two is
        neither a ResNet nor a plain ViT.
    """
    source = source_branch(checkpoint, branch)
    if source is None:
        return None
    images, options = fixed_image(), {}
    if isinstance(source.backbone, ViT) and is_vit(backbone.state_dict()):
        images = fixed_image(_side_without_windows(backbone))
        options = dict(class_token=getattr(backbone, "cls_token", None) is not None)
    dilate_like(source.backbone, backbone)
    ours, theirs = stage_features(source.backbone, images, **options), stage_features(backbone, images)
    return {name: largest_difference(ours[name], theirs[name]) for name in ours if name in theirs} or None


def dilate_like(backbone: nn.Module, other: nn.Module) -> None:
    """Copy stride, padding and dilation of another ResNet's dilated stages into ``backbone``, in place. Weights, stages
    without dilation, and other networks stay unchanged."""
    own = dict(backbone.named_modules())
    for name, stage in other.named_children():
        convs = {f"{name}.{key}": conv for key, conv in stage.named_modules() if isinstance(conv, nn.Conv2d)}
        if re.fullmatch("layer[1-4]", name) and any(max(conv.dilation) > 1 for conv in convs.values()):
            for key in convs.keys() & own.keys():
                for field in ("stride", "padding", "dilation"):
                    setattr(own[key], field, getattr(convs[key], field))


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest absolute difference of two maps; infinite if their shapes differ."""
    return (ours - theirs).abs().max().item() if ours.shape == theirs.shape else math.inf


def _side_without_windows(backbone: nn.Module) -> int:
    """Return the side in pixels of an image that is one window of a ViT, or, without windows, of the image size that
    its table of positions is for."""
    facts = of_model(backbone)
    window = max(getattr(module, "window_size", None) or 0 for module in backbone.modules())
    return window * facts.patch_size or facts.image_size


@torch.no_grad()
def part_differences(
    model: nn.Module, checkpoint: Source, branch: str | None = None, parts: Collection[str] = ("neck", "head")
) -> dict[str, float] | None:
    """Compare a detector's neck, and the towers of its head, with the pretrained ones.

    Args:
        model: The detector. Left in evaluation mode.
        checkpoint: A checkpoint of densessl or an export, whose ``meta`` has the configs of its parts.
        parts: Parts that were loaded; without the neck nothing is compared.

    Returns:
        The largest absolute difference in each map that both compute with pretrained weights, by level (``"neck.0"``,
        ``"cls.0"`` …): all zero if the transfer is exact. Pooled extra levels have no weights and are left out. None if
        the checkpoint has no configs, or no neck was loaded.
    """
    source = source_branch(checkpoint, branch, parts)
    _, neck = part_of_model(model, "neck")
    _, head = part_of_model(model, "head")
    if source is None or source.neck is None or neck is None:
        return None
    model.eval()
    ours = source(fixed_image(), neck=True, head=source.head is not None)
    theirs = neck(model.backbone(fixed_image()))
    convolved = min(len(getattr(pyramid, "fpn_convs", ours.neck)) for pyramid in (neck, source.neck))
    pairs = list(zip(ours.neck, theirs))[:convolved]
    compared = {f"neck.{i}": pair for i, pair in enumerate(pairs)}
    for tower, maps in ours.head.items() if head is not None else ():
        for i, (_, their_map) in enumerate(pairs):
            for block in getattr(head, f"{tower}_convs"):
                their_map = block(their_map)
            compared[f"{tower}.{i}"] = (maps[i], their_map)
    return {level: largest_difference(a, b) for level, (a, b) in compared.items()}
