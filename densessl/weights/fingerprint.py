"""The fingerprint: what a backbone's weights assume about its architecture and its input pixels.

Two networks can have equal tensor shapes and still compute different functions: a ResNet with its stride in the 1x1
convolution ("caffe") accepts the weights of one with its stride in the 3x3 ("pytorch"); a detector that feeds BGR
accepts weights trained on RGB. Such a load reports no missing key, and the average precision collapses. An exported
file therefore has a fingerprint, and loading compares it with the model's own.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, get_args

from torch import Tensor, nn

from densessl.errors import CheckpointError
from densessl.weights.vit_facts import facts_of_vit, heads_of, is_vit

# (bottleneck blocks?, blocks per stage) of the named ResNets.
RESNETS = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
NORMS = {nn.GroupNorm: "GN", nn.LayerNorm: "LN"}
EPS = 1e-5  # default eps of norm layers

# How to set each field in an MMDet config: one text, or one for each value.
REMEDIES = {
    "arch": {
        "resnet": "set backbone.type='ResNet'",
        "vit": "set backbone.type='densessl.ViTDet'",
        "other": "build the backbone type that the weights were trained in",
    },
    "depth": "set backbone.depth={}",
    "width": "set backbone.base_channels={}",
    "stem": {"7x7": "set backbone.deep_stem=False (type ResNet, not ResNetV1c)", "deep": "set backbone.deep_stem=True"},
    "shortcut": {"conv": "set backbone.avg_down=False", "avgpool": "set backbone.avg_down=True"},
    "stride": {"3x3": "set backbone.style='pytorch'", "1x1": "set backbone.style='caffe'"},
    "norm": {
        **{norm: f"set {{part}}.norm_cfg.type='{norm}'" for norm in ("BN", "GN", "LN")},
        "none": "set {part}.norm_cfg=None",
    },
    "eps": "set {part}.norm_cfg.eps={}",
    "patch_size": "set backbone.patch_size={}",
    "embed_dim": "set backbone.embed_dim={}",
    "heads": "set backbone.num_heads={}",
    "qkv_bias": "set backbone.qkv_bias={}",
    "layer_scale": {True: "set backbone.layer_scale=1.0", False: "set backbone.layer_scale=None"},
    "image_size": "set backbone.pretrain_img_size={}",
    "class_row": "set backbone.pretrain_use_cls_token={}",
    "groups": "set {part}.norm_cfg.num_groups={}",
    "inputs": "choose the backbone's stages of {} channels by {part}.start_level and backbone.out_indices",
    "out_channels": "set {part}.out_channels={}",
    "extra": "set {part}.add_extra_convs and {part}.relu_before_extra_convs so: {}",
    "in_channels": "set neck.out_channels={}",
    "feat_channels": "set {part}.feat_channels={}",
    "stacked_convs": "set {part}.stacked_convs={}",
    "channel_order": {
        "RGB": "set bgr_to_rgb=True in data_preprocessor, since MMDet reads BGR",
        "BGR": "set bgr_to_rgb=False in data_preprocessor, since MMDet reads BGR",
    },
    "mean": "set mean={} in data_preprocessor",
    "std": "set std={} in data_preprocessor",
    # Facts of a whole detector.
    "type": "build a {}",
    "shapes": {
        "mmdet-3.3": "its decoder.ref_point_head.layers.0 is that of MMDetection 3.3 and the official DINO, which "
        "onedl-mmdetection changed: set model.type='densessl.DINO33', which has it on both "
        "(custom_imports: 'densessl.detectors')",
        "onedl-3.5.1": "its decoder.ref_point_head.layers.0 is that of onedl-mmdetection 3.5.1, which MMDetection 3.3 "
        "and the official DINO lack: set model.type='mmdet.DINO' and use onedl-mmdetection, or pretrain with "
        "options={{'type': 'densessl.DINO33'}}, which is the same on both",
    },
    "with_box_refine": "set model.with_box_refine={}",
    **{
        f"positional_encoding.{key}": f"set model.positional_encoding.{key}={{}}"
        for key in ("num_feats", "temperature", "normalize", "scale", "offset")
    },
    **{f"{part}.heads": f"set num_heads={{}} in model.{part}.layer_cfg" for part in ("encoder", "decoder")},
    **{f"{part}.points": f"set num_points={{}} in model.{part}.layer_cfg" for part in ("encoder", "decoder")},
}


DEEPEST, WIDEST = 1000, 1_000_000  # no network has more layers, channels or pixels on a side


class Difference(NamedTuple):
    """One field in which a model and its weights disagree."""

    field: str
    found: Any
    expected: Any
    part: str = "backbone"

    def __str__(self) -> str:
        value = list(self.expected) if isinstance(self.expected, tuple) else self.expected
        remedy = REMEDIES[self.field]
        remedy = remedy.get(value, "") if isinstance(remedy, dict) else remedy
        return f"{self.field}: found {self.found}, expected {self.expected}: {remedy.format(value, part=self.part)}"


@dataclass(frozen=True)
class Fingerprint:
    """What must agree between the trained network and the one that loads its weights. ``None`` means unknown.

    It leaves out zero initialisation of the last norm of a block, frozen stages and dilation, which do not change what
    the tensors mean.

    Attributes:
        arch: ``"resnet"``, ``"vit"``, or ``"other"``, for which only names and shapes of tensors are compared.
        depth: 18, 34, 50, 101 or 152; for a ViT, the number of its blocks.
        width: Channels of the first convolution of the first block, 64 in a standard ResNet.
        stem: ``"7x7"``, ``"deep"`` (three 3x3 convolutions), or the size of another first convolution, ``"3x3"``.
        shortcut: ``"conv"`` or ``"avgpool"`` (pooling before a 1x1 convolution of stride 1, ResNet-D).
        stride: Which convolution of a bottleneck has the stride: ``"3x3"`` (MMDet's ``style="pytorch"``), ``"1x1"``
            (caffe).
        norm: ``"BN"`` for every form of batch normalisation, synchronised or not; ``"GN"``, ``"LN"``.
        eps: Added to the variance in the norm layers.
        patch_size, embed_dim, heads, qkv_bias, layer_scale: For a ViT: side of a patch in pixels, channels of a token,
            attention heads, whether queries, keys and values have biases, whether blocks have LayerScale.
        image_size: Side in pixels of the images that a ViT's position embedding is for.
        class_row: Whether that embedding has a row for a class token.
        channel_order: ``"RGB"`` or ``"BGR"``.
        mean, std: Per channel, in the order of ``channel_order``, of pixel values in 0 to 255.
    """

    arch: str | None = None
    depth: int | None = None
    width: int | None = None
    stem: str | None = None
    shortcut: str | None = None
    stride: str | None = None
    norm: str | None = None
    eps: float | None = None
    patch_size: int | None = None
    embed_dim: int | None = None
    heads: int | None = None
    qkv_bias: bool | None = None
    layer_scale: bool | None = None
    image_size: int | None = None
    class_row: bool | None = None
    channel_order: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __str__(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.to_dict().items())

    def to_dict(self) -> dict:
        """Plain lists, strings and numbers, so that the file opens with ``weights_only=True``."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v is not None}

    @classmethod
    def from_dict(cls, values: Mapping) -> "Fingerprint":
        """The inverse of :meth:`to_dict`. Unknown keys, from later versions, are ignored.

        Raises:
            CheckpointError: ``values`` is no dict, or a value has the wrong type for its field or is out of range.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"fingerprint: found {values!r}, expected a dict of fields such as 'arch'")
        known = {field.name: get_args(field.type)[0] for field in fields(cls)}
        given = {key: value for key, value in values.items() if key in known and value is not None}
        wrong = [f"{key}: found {value!r}" for key, value in given.items() if not _is_a(known[key], value)]
        if wrong:
            raise CheckpointError(f"fingerprint with values that are not of their fields' types: {'; '.join(wrong)}")
        check_numbers(given)
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()})


def check_numbers(values: Mapping) -> None:
    """Check the numbers of a fingerprint that a file gives.

    Args:
        values: fields by name, each of its type.

    Raises:
        CheckpointError: no network can have one of them.
    """
    for key in ("depth", "width", "patch_size", "embed_dim", "heads", "image_size"):
        most = DEEPEST if key == "depth" else WIDEST
        if values.get(key) is not None and not 1 <= values[key] <= most:
            raise CheckpointError(f"fingerprint: {key}: found {values[key]!r:.60}, expected 1 to {most:,}")
    eps = values.get("eps")
    if eps is not None and not 0 <= eps < math.inf:
        raise CheckpointError(f"fingerprint: eps: found {eps!r}, expected a finite number of at least 0")
    check_pixels(values)


def check_pixels(values: Mapping) -> None:
    """Check the statistics of pixels that a file gives, which another library or a person may have written.

    Args:
        values: ``mean``, ``std`` and ``channel_order``; each may be missing or None.

    Raises:
        CheckpointError: one of them cannot be: not finite numbers, a deviation of 0, other channels.
    """
    for key in ("mean", "std"):
        numbers = values.get(key)
        if numbers is None:
            continue
        fits = _is_a(tuple, numbers) and len(numbers) > 0 and all(math.isfinite(number) for number in numbers)
        if not fits or (key == "std" and min(numbers) <= 0):
            more = " above 0" if key == "std" else ""
            raise CheckpointError(
                f"{key} of the pixels: found {numbers!r:.60}, expected a finite number{more} per channel"
            )
    mean, std = values.get("mean"), values.get("std")
    if mean is not None and std is not None and len(mean) != len(std):
        raise CheckpointError(
            f"mean and std of the pixels: found {len(mean)} and {len(std)} numbers, expected one per channel in both"
        )
    if values.get("channel_order") not in (None, "RGB", "BGR"):
        raise CheckpointError(f"channel_order: found {values['channel_order']!r:.60}, expected 'RGB' or 'BGR'")


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a value has this type; a list counts as a tuple, and 1 as 1.0."""
    if isinstance(value, bool) or kind in (bool, str):
        return type(value) is kind
    if kind in (int, float):
        return isinstance(value, int | kind)
    return isinstance(value, list | tuple) and all(_is_a(float, entry) for entry in value)


def of_state(
    state: Mapping[str, Tensor], config: Mapping | None = None, normalize: Mapping | None = None
) -> Fingerprint:
    """Return the fingerprint of a bare backbone's state dict.

    Args:
        state: Backbone tensors, unprefixed (``conv1.weight`` …).
        config: Config of the backbone, for fields that tensors do not show: which convolution of a bottleneck has the
            stride, the norm layers' eps, a ViT's heads.
        normalize: ``dict(mean=, std=, channel_order=)`` of the pixels; values for pixels in 0-1 are scaled to 0-255.
    """
    config = config or {}
    kind = config.get("type")
    kind = kind if isinstance(kind, str) or kind is None else kind.__name__
    norm_config = config.get("norm_cfg") or {}
    known: dict[str, Any] = _pixels(normalize)
    batch_norm = any(key.endswith("running_mean") for key in state)
    known["norm"] = "BN" if batch_norm else norm_config.get("type")
    # With no config at all (a file of unknown origin) the eps stays unknown.
    known["eps"] = norm_config.get("eps", EPS) if kind and known["norm"] else None
    if is_vit(state):
        return Fingerprint(arch="vit", **known | facts_of_vit(state, config))
    if not is_resnet(state):
        return Fingerprint(arch="other", **known)
    bottleneck = "layer1.0.conv3.weight" in state
    stages = [{key.split(".")[1] for key in state if key.startswith(f"layer{i}.")} for i in range(1, 5)]
    stride = None if kind is None else "1x1" if config.get("style") == "caffe" else "3x3"
    return Fingerprint(
        arch="resnet",
        depth=RESNETS.get((bottleneck, tuple(map(len, stages)))),
        width=state["layer1.0.conv1.weight"].shape[0],
        stem="x".join(map(str, state["conv1.weight"].shape[2:])) if "conv1.weight" in state else "deep",
        # Where the shortcut pools first, its convolution is the second module. Stage 2 has one in every ResNet.
        shortcut="avgpool" if getattr(state.get("layer2.0.downsample.1.weight"), "ndim", 1) == 4 else "conv",
        stride=stride if bottleneck else "3x3",  # a basic block has no 1x1 convolution to put it in
        **known,
    )


def of_model(backbone: nn.Module, data_preprocessor: nn.Module | None = None) -> Fingerprint:
    """Return the fingerprint of a built backbone, read from its modules, not from its config.

    Args:
        backbone: MMDet's, torchvision's, timm's or ours.
        data_preprocessor: The detector's. MMDet's pipelines read images as BGR, whatever decodes them, so a
            preprocessor that swaps channels feeds RGB. Without it, the pixel fields stay unknown.
    """
    eps = {m.eps for m in backbone.modules() if hasattr(m, "running_mean") or isinstance(m, tuple(NORMS))}
    norms = {name for kind, name in NORMS.items() if any(isinstance(m, kind) for m in backbone.modules())}
    seen = of_state(backbone.state_dict())
    values = asdict(seen) | {
        "depth": seen.depth or getattr(backbone, "depth", None),  # three stages are too few to count
        "stride": seen.stride or _stride(backbone),
        "heads": heads_of(backbone) if seen.arch == "vit" else None,
        "norm": seen.norm or (norms.pop() if len(norms) == 1 else None),
        "eps": eps.pop() if len(eps) == 1 else None,
    }
    if data_preprocessor is not None:
        # MMEngine's attribute has an underscore; the original mmsegmentation's has none.
        swaps = getattr(data_preprocessor, "channel_conversion", False)
        swaps = getattr(data_preprocessor, "_channel_conversion", swaps)
        normalises = getattr(data_preprocessor, "_enable_normalize", False)
        values |= _pixels(
            {
                "mean": data_preprocessor.mean.flatten().tolist() if normalises else [0.0] * 3,
                "std": data_preprocessor.std.flatten().tolist() if normalises else [1.0] * 3,
                "channel_order": "RGB" if swaps else "BGR",
            },
            scale=1.0,
        )
    return Fingerprint(**values)


def compare(found: Fingerprint, expected: Fingerprint) -> tuple[list[Difference], list[str]]:
    """Compare a model's fingerprint with a file's.

    Returns:
        The fields that differ, and the names of those that one side does not know. Means and deviations agree within
        1e-3 (relative above 1), because they are written with varying precision; eps agrees within a relative 1e-6. If
        the architectures differ, nothing else is compared.
    """
    if None not in (found.arch, expected.arch) and found.arch != expected.arch:
        return [Difference("arch", found.arch, expected.arch)], []
    return compare_facts(asdict(found), asdict(expected), "backbone")


def compare_facts(
    found: Mapping[str, Any], expected: Mapping[str, Any], part: str
) -> tuple[list[Difference], list[str]]:
    """Compare two dicts of facts as :func:`compare` does. A key of ``expected`` that ``found`` lacks does not apply.

    Args:
        part: the part's name in the detector.
    """
    differences, unknown = [], []
    for field, want in expected.items():
        have = found.get(field)
        if field not in found or (want is None and have is None):
            continue  # does not apply, such as the stem of a ViT
        if want is None or have is None:
            unknown.append(field)
        elif not _agree(have, want):
            differences.append(Difference(field, have, want, part))
    return differences, unknown


def _agree(have: Any, want: Any) -> bool:
    if isinstance(want, float):
        return math.isclose(have, want, rel_tol=1e-6)
    if isinstance(want, tuple):
        return len(have) == len(want) and all(abs(a - b) <= 1e-3 * max(1, abs(b)) for a, b in zip(have, want))
    return have == want


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    stems = ("conv1.weight", "stem.0.weight", "conv1.0.weight")  # torchvision and MMDet; MMDet deep; timm deep
    return "layer1.0.conv1.weight" in state and any(stem in state for stem in stems)


def _stride(backbone: nn.Module) -> str | None:
    """Return which convolution of the bottlenecks has the stride, read from the modules; None if no stage has one."""
    kinds = set()
    for stage in ("layer2", "layer3", "layer4"):
        modules = dict(getattr(backbone, stage, nn.Module()).named_modules())
        strided = {"1x1": modules.get("0.conv1"), "3x3": modules.get("0.conv2")}
        kinds |= {kind for kind, conv in strided.items() if conv is not None and max(conv.stride) > 1}
    return " and ".join(sorted(kinds)) or None


def _pixels(normalize: Mapping | None, scale: float | None = None) -> dict[str, Any]:
    """Return mean, std and channel order, with mean and std on the 0-255 scale. The scale is recognised: for pixels in
    0-1 no number is above 1, for pixels in 0-255 some are."""
    if not normalize:
        return {}
    mean, std = normalize.get("mean"), normalize.get("std")
    if scale is None:
        scale = 255.0 if all(value <= 1 for value in [*(mean or ()), *(std or ())]) else 1.0

    def scaled(values: Sequence[float] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(round(scale * float(v), 4) for v in values)

    return {"mean": scaled(mean), "std": scaled(std), "channel_order": normalize.get("channel_order")}
