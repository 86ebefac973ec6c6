"""A branch: what turns views into maps, and maps into projections."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn


class Features(NamedTuple):
    """What a branch makes of a view.

    Attributes:
        levels: maps of the backbone's output stages, each (N, C_l, H_l, W_l).
        neck: maps of the neck's outputs, empty where no objective asked for it.
    """

    levels: tuple[Tensor, ...]
    neck: tuple[Tensor, ...] = ()

    def __getitem__(self, level: int | str) -> Tensor:
        """Level ``i`` of the backbone, or ``"neck.i"``."""
        if isinstance(level, str):
            return self.neck[int(level.removeprefix("neck."))]
        return self.levels[level]

    def map(self, function) -> "Features":
        """The same features with ``function`` applied to each map."""
        return Features(tuple(map(function, self.levels)), tuple(map(function, self.neck)))

    def chunk(self, parts: int) -> list["Features"]:
        """The features of each of ``parts`` views that went through the branch as one batch."""
        if parts == 1:
            return [self]
        levels, neck = ([item.chunk(parts) for item in maps] for maps in self)
        return [Features(tuple(m[i] for m in levels), tuple(m[i] for m in neck)) for i in range(parts)]


class Branch(nn.Module):
    """Backbone, neck if there is one, and the projectors that objectives asked for.

    Args:
        backbone: module with ``out_channels``, called on (N, 3, H, W), giving a tuple of maps.
        neck: module called on that tuple, giving a tuple of maps.
        projectors: by name, ``<objective>_<projector>``.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module | None, projectors: Mapping[str, nn.Module]):
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.projectors = nn.ModuleDict(projectors)

    def forward(self, views: Tensor, keep: Tensor | None = None, neck: bool = False) -> Features:
        """Features of views (N, 3, H, W).

        Args:
            keep: (N, L) indices of the tokens a masked backbone keeps.
            neck: also run the neck.
        """
        levels = tuple(self.backbone(views) if keep is None else self.backbone(views, keep=keep))
        return Features(levels, tuple(self.neck(levels)) if neck else ())
