"""That a detector computes what the pretraining did: both run on one fixed image, and their features are compared."""

from collections.abc import Collection

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from densessl.branches.branch import Branch, build_branch
from densessl.registry import SCOPE
from densessl.transfer.export import Source, open_checkpoint, part_configs, parts_in, read_backbone
from densessl.transfer.parts import part_of_model


def fixed_image() -> Tensor:
    """Noise, (1, 3, 96, 96)."""
    return torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def source_branch(checkpoint: Source, branch: str = "online", parts: Collection[str] = ()) -> Branch | None:
    """The branch in a file, of the backbone and the given other parts, built anew from their configs, in evaluation
    mode; None where the file does not tell them."""
    checkpoint = open_checkpoint(checkpoint)
    others = {part: state for part, state in parts_in(checkpoint, branch).items() if part in parts}
    states = {"backbone": read_backbone(checkpoint, branch)[0], **others}
    configs = {part: part_configs(checkpoint.meta).get(part) for part in states}
    if not all(configs.values()):
        return None
    with DefaultScope.overwrite_default_scope(SCOPE):  # where "ResNet" is ours, also beside a detector
        built = build_branch(configs)
    for part, state in states.items():
        getattr(built, part).load_state_dict(state)
    return built.eval()


def stage_features(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Outputs (N, C, H / stride, W / stride) of the stages ``layer1`` … of any ResNet in evaluation mode, by name.

    They are taken at the last block of a stage, so it does not matter which stages the backbone returns.
    """
    seen: dict[str, Tensor] = {}
    stages = [name for name in ("layer1", "layer2", "layer3", "layer4") if hasattr(backbone, name)]
    handles = [
        getattr(backbone, name)[-1].register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name in stages
    ]
    try:
        with torch.no_grad():
            backbone.eval()  # on its own line: MMDet's ResNet.train returns None
            backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def feature_differences(backbone: nn.Module, checkpoint: Source, branch: str = "online") -> dict[str, float] | None:
    """Compare a loaded backbone with the branch it came from.

    Args:
        backbone: The detector's. Left in evaluation mode.
        checkpoint: A checkpoint of densessl or an export, whose ``meta`` has the config of its backbone.

    Returns:
        The largest absolute difference in each stage that both networks run: all zero if the transfer is exact. None
        if the checkpoint does not tell its backbone's config, or one of the two is not a ResNet.
    """
    source = source_branch(checkpoint, branch)
    if source is None:
        return None
    ours, theirs = (stage_features(item, fixed_image()) for item in (source.backbone, backbone))
    return {name: (ours[name] - theirs[name]).abs().max().item() for name in ours if name in theirs} or None


@torch.no_grad()
def part_differences(
    model: nn.Module, checkpoint: Source, branch: str = "online", parts: Collection[str] = ("neck", "head")
) -> dict[str, float] | None:
    """Compare a detector's neck, and the towers of its head, with those they were loaded from.

    Args:
        model: The detector. Left in evaluation mode.
        checkpoint: A checkpoint of densessl or an export, whose ``meta`` has the configs of its parts.
        parts: Those that were loaded; without the neck nothing is compared.

    Returns:
        The largest absolute difference in each map that both make with pretrained weights, by level (``"neck.0"``,
        ``"cls.0"`` …): all zero if the transfer is exact. Extra levels that are pooled have no weights and are left
        out. None if the checkpoint does not tell the configs, or no neck was loaded.
    """
    source = source_branch(checkpoint, branch, parts)
    _, neck = part_of_model(model, "neck")
    _, head = part_of_model(model, "head")
    if source is None or source.neck is None or neck is None:
        return None
    model.eval()
    ours = source(fixed_image(), neck=True, head=source.head is not None)
    theirs = neck(model.backbone(fixed_image()))
    convolved = min(len(getattr(item, "fpn_convs", ours.neck)) for item in (neck, source.neck))
    pairs = list(zip(ours.neck, theirs))[:convolved]
    found = {f"neck.{i}": pair for i, pair in enumerate(pairs)}
    for tower, maps in ours.head.items() if head is not None else ():
        for i, (_, item) in enumerate(pairs):
            for block in getattr(head, f"{tower}_convs"):
                item = block(item)
            found[f"{tower}.{i}"] = (maps[i], item)
    return {level: (a - b).abs().max().item() for level, (a, b) in found.items()}
