"""A branch: what turns views into maps, and maps into projections."""

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
# Of the backbone by number, or as sequences "tokens.0"; "neck.0"; of a head's towers "cls.0", "reg.0".
Level = int | str


class BranchConfig(TypedDict):
    """The parts of a branch, see :func:`build_branch`.

    Attributes:
        backbone: any registered, `mmdet.*` or `timm.*` backbone.
        neck: what makes a pyramid of its maps.
        head: the shared convolutions of a detection head.
    """

    backbone: BackboneConfig
    neck: NotRequired[Annotated[dict, Config(MODELS, filled=("in_channels",))] | None]
    head: NotRequired[Annotated[dict, Config(MODELS, filled=("in_channels",))] | None]


def parts_for(*levels: Level) -> dict[str, bool]:
    """The arguments of :meth:`Branch.forward` with which a pass gives these levels beside the backbone's maps."""
    kinds = {level.partition(".")[0] for level in levels if isinstance(level, str)}
    head = bool(kinds - {"neck", "tokens"})
    return dict(neck=head or "neck" in kinds, head=head, tokens="tokens" in kinds)


def look_up(table: Mapping[Level, T], level: Level) -> T:
    """What a table by levels has for one; negative numbers count from the backbone's last.

    Raises:
        ValueError: there is no such level; the message lists those there are.
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
    """One table of what there is for each map and sequence of the backbone, the neck, and the towers of a head."""
    table = dict(enumerate(levels))
    for part, items in {"tokens": tokens, "neck": neck, **head}.items():
        table |= {f"{part}.{i}": item for i, item in enumerate(items)}
    return table


class Features(NamedTuple):
    """What a branch makes of a view.

    Attributes:
        levels: maps of the backbone's output stages, each (N, C_l, H_l, W_l); none of a masked view.
        neck: maps of the neck's outputs, empty where no objective asked for it.
        head: by tower, maps of the head's shared convolutions at each of the neck's outputs; empty likewise.
        tokens: sequences of a transformer's output blocks, (N, [1 +] L, C_l), its class token first if it has one;
            empty where no objective asked for them.
    """

    levels: tuple[Tensor, ...]
    neck: tuple[Tensor, ...] = ()
    head: Mapping[str, tuple[Tensor, ...]] = {}
    tokens: tuple[Tensor, ...] = ()

    def __getitem__(self, level: Level) -> Tensor:
        """Level ``i`` of the backbone, its sequence ``"tokens.i"``, ``"neck.i"``, or ``"TOWER.i"`` of the head at the
        neck's output i."""
        return look_up(by_level(self.levels, self.neck, self.head, self.tokens), level)

    def map(self, function: Callable[[Tensor], Any]) -> "Features":
        """The same features with ``function`` applied to each map."""
        lists = (self.levels, self.neck, self.tokens, *self.head.values())
        levels, neck, tokens, *towers = (tuple(map(function, items)) for items in lists)
        return Features(levels, neck, dict(zip(self.head, towers)), tokens)

    def chunk(self, parts: int) -> list["Features"]:
        """The features of each of ``parts`` views that went through the branch as one batch."""
        if parts == 1:
            return [self]
        pieces = self.map(lambda item: item.chunk(parts))
        return [pieces.map(lambda item, i=i: item[i]) for i in range(parts)]


class Branch(nn.Module):
    """Backbone, neck and head if there are any, and the projectors that objectives asked for.

    Args:
        backbone: module with ``out_channels``, called on (N, 3, H, W), giving a tuple of maps. One with a method
            ``maps`` gives sequences too, see :class:`densessl.branches.vit.ViT`.
        neck: module called on that tuple, giving a tuple of ``num_outs`` maps of ``out_channels``.
        projectors: by name, ``<objective>_<projector>``.
        head: module called on the neck's tuple, giving maps of ``out_channels`` at each of its outputs by the names in
            ``towers``.
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
        """Keep the projectors of an objective, by their names there."""
        self.projectors.update({f"{objective}_{name}": module for name, module in projectors.items()})

    def projector(self, objective: str, name: str) -> nn.Module:
        """The projector that an objective calls ``name``.

        Raises:
            ValueError: it has none of that name; the message has the nearest.
        """
        return self.projectors[choose("projector", f"{objective}_{name}", self.projectors)]

    def forward(
        self, views: Tensor, keep: Tensor | None = None, neck: bool = False, head: bool = False, tokens: bool = False
    ) -> Features:
        """Features of views (N, 3, H, W).

        Args:
            keep: (N, L) indices of the cells that a masked backbone looks at; it then gives tokens and no maps.
            neck: also run the neck.
            head: also run the neck and the head.
            tokens: also give a transformer's sequences.
        """
        if tokens:
            sequences = self.backbone(views, keep=keep, tokens=True)
            levels = self.backbone.maps(sequences, views) if keep is None else ()
        else:
            sequences, levels = (), tuple(self.backbone(views))
        maps = tuple(self.neck(levels)) if neck or head else ()
        return Features(levels, maps, self.head(maps) if head else {}, sequences)

    def channels(self, level: Level) -> int:
        """Width of a level.

        Raises:
            ValueError: there is no such level; the message lists those there are.
        """
        sequences = hasattr(self.backbone, "maps")
        if parts_for(level)["tokens"] and not sequences:
            raise SettingError(
                f"level {level!r} is asked for, online.backbone {type(self.backbone).__name__} gives maps and no "
                "sequences of tokens; expected dict(type='ViT', …)"
            )
        outs = () if self.neck is None else (self.neck.out_channels,) * self.neck.num_outs
        towers = {} if self.head is None else {name: (self.head.out_channels,) * len(outs) for name in self.head.towers}
        own = self.backbone.out_channels
        return look_up(by_level(own, outs, towers, own if sequences else ()), level)


def build_branch(online: Mapping[str, Any]) -> Branch:
    """A branch without projectors.

    Args:
        online: ``dict(backbone=…, neck=None, head=None)`` of configs. A neck's ``in_channels`` are those of the
            backbone's maps and a head's are the neck's, unless they say otherwise.

    Raises:
        ValueError: a head without a neck, or a neck that does not tell its outputs.
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
    # Names without a prefix are ours, whatever scope the process is in.
    scope = {} if "." in str(cfg.get("type")) else {"_scope_": SCOPE}
    module = MODELS.build({"in_channels": in_channels, **scope, **copy.deepcopy(dict(cfg))})
    # OpenMMLab's modules are initialised by a second call. It is made here, before the target copies the branch.
    if hasattr(module, "init_weights"):
        module.init_weights()
    return module
