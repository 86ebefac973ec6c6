"""A branch: backbone, neck, head and projectors, which turn views into maps and projections."""

import copy
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, NotRequired, TypedDict, TypeVar

from torch import Tensor, nn

from densessl.branches.backbone import BackboneConfig, build_backbone
from densessl.constraints import Config
from densessl.errors import SettingError
from densessl.registry import MODELS, SCOPE
from densessl.wording import choose

T = TypeVar("T")
# A map of the backbone by number, its sequence as "tokens.0", a map of the neck as "neck.0", of a head's tower as
# "cls.0".
Level = int | str


class BranchConfig(TypedDict):
    """The parts of a branch, see :func:`build_branch`.

    Attributes:
        backbone: any registered, `mmdet.*` or `timm.*` backbone.
        neck: module that makes a pyramid from the backbone's maps.
        head: the shared convolutions of a detection head.
    """

    backbone: BackboneConfig
    neck: NotRequired[Annotated[dict, Config(MODELS, filled=("in_channels",))] | None]
    head: NotRequired[Annotated[dict, Config(MODELS, filled=("in_channels",))] | None]


def parts_for(*levels: Level) -> dict[str, bool]:
    """The arguments of :meth:`Branch.forward` that make a pass compute these levels."""
    kinds = {level.partition(".")[0] for level in levels if isinstance(level, str)}
    head = bool(kinds - {"neck", "tokens"})
    return dict(neck=head or "neck" in kinds, head=head, tokens="tokens" in kinds)


def look_up(table: Mapping[Level, T], level: Level) -> T:
    """The entry of a level in a table by levels. Negative numbers count from the backbone's last map.

    Raises:
        SettingError: there is no such level; the message lists the known ones.
    """
    numbers = sum(isinstance(known, int) for known in table)
    key = level + numbers if isinstance(level, int) and level < 0 else level
    if key not in table:
        names = ", ".join(repr(known) for known in table if isinstance(known, str)) or "none"
        raise SettingError(
            f"level {level!r} is asked for, the backbone gives {numbers} (its out_indices); named levels: {names}"
        )
    return table[key]


def by_level(levels, neck, head: Mapping[str, Any], tokens) -> dict[Level, Any]:
    """One table by level of the entries for the maps and sequences of the backbone, the neck, and a head's towers."""
    table = dict(enumerate(levels))
    for part, entries in {"tokens": tokens, "neck": neck, **head}.items():
        table |= {f"{part}.{i}": entry for i, entry in enumerate(entries)}
    return table


class Features(NamedTuple):
    """The maps and sequences of a view.

    Attributes:
        levels: maps of the backbone's output stages, each (N, C_l, H_l, W_l); empty for a masked view.
        neck: maps of the neck's outputs; empty where the neck did not run.
        head: maps of the head's shared convolutions at each of the neck's outputs, by tower; empty where the head did
            not run.
        tokens: sequences of a transformer's output blocks, (N, [1 +] L, C_l), the class token first if there is one;
            empty where they were not asked for.
    """

    levels: tuple[Tensor, ...]
    neck: tuple[Tensor, ...] = ()
    head: Mapping[str, tuple[Tensor, ...]] = {}
    tokens: tuple[Tensor, ...] = ()

    def __getitem__(self, level: Level) -> Tensor:
        """The backbone's map ``i`` or sequence ``"tokens.i"``, the neck's ``"neck.i"``, or a head's ``"TOWER.i"`` at
        the neck's output i."""
        return look_up(by_level(self.levels, self.neck, self.head, self.tokens), level)

    def map(self, function: Callable[[Tensor], Any]) -> "Features":
        """The features with ``function`` applied to each map and sequence."""
        lists = (self.levels, self.neck, self.tokens, *self.head.values())
        levels, neck, tokens, *towers = (tuple(map(function, tensors)) for tensors in lists)
        return Features(levels, neck, dict(zip(self.head, towers)), tokens)

    def chunk(self, parts: int) -> list["Features"]:
        """The features of each of ``parts`` views that passed the branch as one batch."""
        if parts == 1:
            return [self]
        pieces = self.map(lambda tensor: tensor.chunk(parts))
        return [pieces.map(lambda chunks, i=i: chunks[i]) for i in range(parts)]


class Branch(nn.Module):
    """A backbone, an optional neck and head, and the projectors of the objectives.

    Args:
        backbone: module with ``out_channels`` that maps (N, 3, H, W) to a tuple of maps. A backbone with a method
            ``maps`` also gives sequences, see :class:`densessl.branches.vit.ViT`.
        neck: module that maps this tuple to a tuple of ``num_outs`` maps of ``out_channels`` channels.
        projectors: projectors by name, ``<objective>_<projector>``.
        head: module that maps the neck's tuple to maps of ``out_channels`` channels at each of its outputs, by the
            names in ``towers``.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module | None,
        projectors: Mapping[str, nn.Module],
        head: nn.Module | None = None,
    ):
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.head = head
        self.projectors = nn.ModuleDict(projectors)

    def add_projectors(self, objective: str, projectors: Mapping[str, nn.Module]) -> None:
        """Add the projectors of an objective, by their names in the objective."""
        self.projectors.update({f"{objective}_{name}": module for name, module in projectors.items()})

    def projector(self, objective: str, name: str) -> nn.Module:
        """The projector ``name`` of an objective.

        Raises:
            SettingError: there is none of that name; the message has the nearest.
        """
        return self.projectors[choose("projector", f"{objective}_{name}", self.projectors)]

    def forward(
        self, views: Tensor, keep: Tensor | None = None, neck: bool = False, head: bool = False, tokens: bool = False
    ) -> Features:
        """Features of views (N, 3, H, W).

        Args:
            keep: (N, L) indices of the visible cells of masked views, which have sequences but no maps.
            neck: also run the neck.
            head: also run the neck and the head.
            tokens: also return a transformer's sequences.
        """
        if tokens:
            sequences = self.backbone(views, keep=keep, tokens=True)
            levels = self.backbone.maps(sequences, views) if keep is None else ()
        else:
            sequences, levels = (), tuple(self.backbone(views))
        maps = tuple(self.neck(levels)) if neck or head else ()
        return Features(levels, maps, self.head(maps) if head else {}, sequences)

    def channels(self, level: Level) -> int:
        """Number of channels of a level.

        Raises:
            SettingError: there is no such level; the message lists the known ones.
        """
        sequences = hasattr(self.backbone, "maps")
        if parts_for(level)["tokens"] and not sequences:
            raise SettingError(
                f"level {level!r} is asked for, online.backbone {type(self.backbone).__name__} gives maps and no "
                "sequences of tokens; expected dict(type='ViT', …)"
            )
        outs = () if self.neck is None else (self.neck.out_channels,) * self.neck.num_outs
        towers = {} if self.head is None else {name: (self.head.out_channels,) * len(outs) for name in self.head.towers}
        widths = self.backbone.out_channels
        return look_up(by_level(widths, outs, towers, widths if sequences else ()), level)


def build_branch(online: Mapping[str, Any]) -> Branch:
    """Build a branch without projectors.

    Args:
        online: ``dict(backbone=…, neck=None, head=None)`` of configs. ``in_channels`` of the neck default to the widths
            of the backbone's maps, those of the head to the width of the neck's.

    Raises:
        SettingError: a head without a neck, or a neck without the attributes that describe its outputs.
    """
    backbone = build_backbone(online["backbone"])
    neck = head = None
    if online.get("neck"):
        neck = _build(online["neck"], list(backbone.out_channels))
        if not (hasattr(neck, "out_channels") and hasattr(neck, "num_outs")):
            raise SettingError(f"online.neck: {type(neck).__name__} lacks the attributes out_channels and num_outs")
    if online.get("head"):
        if neck is None:
            raise SettingError(
                "online.head is given without online.neck; expected a neck, whose maps the head works on"
            )
        head = _build(online["head"], neck.out_channels)
    return Branch(backbone, neck, {}, head)


def _build(cfg: Mapping[str, Any], in_channels: list[int] | int) -> nn.Module:
    # Names without a prefix are densessl's, whatever the default scope of the process.
    scope = {} if "." in str(cfg.get("type")) else {"_scope_": SCOPE}
    module = MODELS.build({"in_channels": in_channels, **scope, **copy.deepcopy(dict(cfg))})
    # OpenMMLab's modules are initialised by a second call, which must come before the target copies the branch.
    if hasattr(module, "init_weights"):
        module.init_weights()
    return module
