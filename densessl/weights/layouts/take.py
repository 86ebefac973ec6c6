"""Take the backbone out of a public checkpoint, using the tables of :mod:`densessl.weights.layouts.tables`."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from densessl.errors import ExportError
from densessl.weights.fingerprint import EPS, is_resnet
from densessl.weights.io.checkpoints import rename
from densessl.weights.layouts.renames import HEADS, NAMES
from densessl.weights.layouts.tables import LAYOUTS, PLAIN, Layout
from densessl.weights.vit_facts import REST, is_vit
from densessl.wording import count

# Prefixes that DistributedDataParallel and torch.compile put into names; the latter also before a compiled part.
WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)\.)*|(?<=\.)_orig_mod\.")
FPN = re.compile(r"neck\.(?:lateral|fpn)_convs\.")
# DeepMind's networks pad as TensorFlow does: asymmetrically at stride 2.
HAIKU = re.compile(r"(?:^|\.)res_net\d+/~/", re.MULTILINE)
# Names that every network has; what precedes one is the prefix. In OpenMMLab libraries, timm's backbones are nested.
INSIDE = re.compile(
    r"^(?!timm_model\.)(.+\.)(?:layer1\.0\.conv1\.weight|4\.0\.conv1\.weight|blocks\.0\.attn\.qkv\.weight)$",
    re.MULTILINE,
)
WHOLE = ("neck.", "bbox_head.")  # further parts in files of MMDetection


class Taken(NamedTuple):
    """What was taken from a file.

    Attributes:
        layout: The layout of the file.
        branch: The branch that was taken.
        branches: The branches in the file.
        tensors: ``backbone.*`` and, if there is one, ``neck.*``, by MMDetection's names; all tensors of densessl's
            files.
        dropped: Number of tensors that were left out, by the beginning of their names.
    """

    layout: Layout
    branch: str
    branches: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    dropped: Counter


def layout_of(names: Iterable[str]) -> Layout | None:
    """Return the layout of a file with these tensor names; None if it is unknown."""
    text = "\n".join(WRAPPERS.sub("", name) for name in names)
    return next((layout for layout in [*LAYOUTS, *PLAIN] if all(_begins(mark, text) for mark in layout.marks)), None)


def take(state: Mapping[str, Tensor], name: str, branch: str | None = None) -> Taken:
    """Take the backbone, and the FPN if there is one, from a file of a public layout.

    Args:
        state: All named tensors of the file.
        name: Name of the file, for errors.
        branch: ``"online"``, ``"target"``, or None for the layout's default.

    Raises:
        ExportError: The layout is unknown, its prefix leads to no network, or there is no such branch. The message says
            what the file has, and which layout is nearest.
    """
    bare = {WRAPPERS.sub("", key): value for key, value in state.items()}
    layout = layout_of(bare)
    if layout is None:
        raise ExportError(unknown(bare, name))
    branches = tuple(b for b, prefix in layout.branches.items() if any(re.match(prefix, key) for key in bare))
    branch = branch or (layout.default if layout.default in branches else branches[0])
    if branch not in branches:
        raise ExportError(f"{name} ({layout.name}) has no {branch!r} backbone; its branches are {list(branches)}")
    prefix = re.compile(layout.branches[branch])
    places = {key: key[match.end() :] for key in bare if (match := prefix.match(key))}
    places = {key: own for key, own in places.items() if not HEADS.fullmatch(own) and not REST.fullmatch(own)}
    own = rename({own: bare[key] for key, own in places.items()}, [*layout.rules, *NAMES])
    parts = {key: value for key, value in own.items() if FPN.match(key)}
    backbone = _completed({key: value for key, value in own.items() if key not in parts}, layout.folded)
    if not is_resnet(backbone) and not is_vit(backbone):
        if not layout.others or INSIDE.search("\n".join(backbone)):
            raise ExportError(unknown(bare, name))
        # The rules are for ResNets and ViTs only: a Swin's patch_embed.projection is already MMDetection's name.
        backbone = _completed({own: bare[key] for key, own in places.items()}, layout.folded)
    elif layout.grouped and _has_groups(backbone):
        layout = layout._replace(facts=layout.grouped)
    if layout.whole:
        parts = {key: value for key, value in bare.items() if key.startswith(WHOLE)}
    tensors = {f"backbone.{key}": value for key, value in backbone.items()} | parts
    return Taken(layout, branch, branches, tensors, grouped(bare, {*places, *parts}))


def unknown(names: Iterable[str], file: str) -> str:
    """Return the error message for a file of unknown layout."""
    names = list(names)
    if HAIKU.search("\n".join(names)):
        return (
            f"no backbone in {file} that PyTorch could run: it has a ResNet of Haiku, whose strided convolutions pad "
            "differently (SAME). MMDetection's would take its tensors and compute something else; use one of PyTorch"
        )
    prefixes = Counter(".".join(name.split(".")[:2]) if name.count(".") > 1 else name.split(".")[0] for name in names)
    shown = [f"{prefix} ({number})" for prefix, number in prefixes.most_common(8)] + ["…"] * (len(prefixes) > 8)
    networks = INSIDE.findall("\n".join(names))
    remedy = f". Networks lie under {networks}: densessl convert FILE OUT --prefix {networks[0]}" if networks else ""
    near = "" if networks else f"; {_nearest(names)}"  # names inside a network resemble many layouts
    return (
        f"no backbone in {file}, whose layout is none of those known{near}. "
        f"The names of its {count(len(names), 'tensor')} begin with {', '.join(shown)}; expected "
        "'online.backbone.*', 'backbone.*', those of a bare ResNet or ViT, or of a layout that docs/transfer.md lists"
        + remedy
    )


def _begins(pattern: str, text: str) -> bool:
    """Whether some line of a text begins with a match of the pattern."""
    return re.search(f"^(?:{pattern})", text, re.MULTILINE) is not None


def _nearest(names: Iterable[str]) -> str:
    """Return the layout most similar to a file's, in words."""
    shares = {layout.name: _share(layout, names) for layout in LAYOUTS}
    nearest = max(shares, key=shares.__getitem__)
    if not shares[nearest]:
        return "none is near"
    return f"the nearest is {nearest!r}: {shares[nearest]:.0%} of its marks are somewhere in these names"


def _share(layout: Layout, names: Iterable[str]) -> float:
    """Return the share of a layout's marks and prefixes that some name has, at its beginning or after any dot."""
    text = "\n".join(names)
    patterns = [*layout.marks, *filter(None, layout.branches.values())]
    return sum(re.search(rf"(?:^|\.)(?:{p})", text, re.MULTILINE) is not None for p in patterns) / len(patterns)


def _has_groups(state: Mapping[str, Tensor]) -> bool:
    """Whether the 3x3 convolutions of a ResNet have groups, so that each sees some of the channels before it."""
    first, second = (state.get(f"layer1.0.conv{i}.weight") for i in (1, 2))
    return first is not None and second is not None and second.shape[1] != first.shape[0]


def _completed(state: dict[str, Tensor], folded: bool) -> dict[str, Tensor]:
    """Return a backbone with the batch-norm tensors that converters leave out.

    The running variance of a folded norm is set to 1 - eps, so that adding eps gives 1, as in Detectron2.
    """
    whole = dict(state)
    for key, value in state.items():
        norm, _, kind = key.rpartition(".")
        if folded and kind == "weight" and value.ndim == 1 and f"{norm}.running_var" not in state:
            whole[f"{norm}.running_mean"] = torch.zeros_like(value)
            whole[f"{norm}.running_var"] = torch.full_like(value, 1 - EPS)
    for key in [key for key in whole if key.endswith(".running_var")]:
        whole.setdefault(key.replace("running_var", "num_batches_tracked"), torch.tensor(0))
    return whole


def grouped(names: Iterable[str], taken: Collection[str] = ()) -> Counter:
    """Count the names that were not taken: by their first part, or by the first two if something was taken from it."""
    roots = {name.split(".")[0] for name in taken}
    left = [name.split(".") for name in names if name not in taken]
    return Counter(".".join(parts[:2]) if parts[0] in roots else parts[0] for parts in left)
