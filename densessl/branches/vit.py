"""Vision transformer with the keys of timm, MAE, SIM and ViTDet.

Keys: ``patch_embed.proj.*``, ``cls_token``, ``pos_embed``, ``blocks.{i}.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,
mlp.fc2}.*``, and ``norm.*`` if there is a final norm.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.branches.positions import grid_points, point_embedding, resized_table
from densessl.branches.transformer import LN, Block, init_linear_, run
from densessl.constraints import Count, NonNegative, Positive, Share, Whole
from densessl.errors import SettingError
from densessl.registry import MODELS


class PatchEmbed(nn.Module):
    """Patches to vectors. Keys ``proj.*``."""

    def __init__(self, patch_size: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch_size, patch_size)
        # As for a linear layer on the flattened patch.
        nn.init.xavier_uniform_(self.proj.weight.view(dim, -1))

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to tokens (N, H/p * W/p, C), row-major."""
        return self.proj(images).flatten(2).mT


@MODELS.register_module()
class ViT(nn.Module):
    """A plain vision transformer. It returns maps, or token sequences with the class token, of all cells or of given
    cells; the cost of the other cells is only their embedding.

    Position embeddings are fixed sines and cosines (zero for the class token); for views of other sizes the table is
    resampled.

    Args:
        image_size: side in pixels for which the table of positions is computed.
        patch_size: side of a patch in pixels.
        dim: width of the tokens, a multiple of 4.
        depth: number of blocks.
        heads, mlp_ratio, qkv_bias, layer_scale: settings of the blocks, see :class:`Block`.
        drop_path: probability of the last block; it grows linearly from 0 at the first.
        out_indices: blocks whose outputs are returned, ascending; None for the last.
        class_token: whether there is a class token.
        final_norm: whether a norm follows the outputs; SIM and ViTDet have none, timm's classifiers do.
        eps: epsilon of the norms.
        freeze_patch_embed: do not train the patch embedding (MoCo v3, SIM).
        with_cp: recompute the activations of each block in the backward pass instead of keeping them.

    Raises:
        SettingError: a value is out of range.
    """

    def __init__(
        self,
        image_size: Count = 224,
        patch_size: Count = 16,
        dim: Count = 768,
        depth: Count = 12,
        heads: Count = 12,
        mlp_ratio: Positive = 4.0,
        qkv_bias: bool = True,
        layer_scale: NonNegative | None = None,
        drop_path: Share = 0.0,
        out_indices: Sequence[Whole] | None = None,
        class_token: bool = True,
        final_norm: bool = False,
        eps: float = LN["eps"],
        freeze_patch_embed: bool = False,
        with_cp: bool = False,
    ):
        super().__init__()
        if image_size % patch_size or dim % 4:
            raise SettingError(
                f"ViT: image_size={image_size} and dim={dim}, expected a multiple of patch_size={patch_size} and of 4"
            )
        self.patch_size = patch_size
        self.out_indices = (depth - 1,) if out_indices is None else tuple(out_indices)
        if list(self.out_indices) != sorted(set(self.out_indices)) or not set(self.out_indices) <= set(range(depth)):
            raise SettingError(f"ViT: out_indices={self.out_indices}, expected ascending numbers from 0 to {depth - 1}")
        self.with_cp = with_cp
        self.out_channels = (dim,) * len(self.out_indices)
        self.out_strides = (patch_size,) * len(self.out_indices)
        self.patch_embed = PatchEmbed(patch_size, dim)
        self.patch_embed.requires_grad_(not freeze_patch_embed)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim)) if class_token else None
        side = image_size // patch_size
        table = point_embedding(grid_points((side, side), torch.zeros((), dtype=torch.float64)), dim)
        table = torch.cat([table.new_zeros(int(class_token), dim), table])
        self.register_buffer("pos_embed", table[None].float())
        drops = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
        block = dict(dim=dim, heads=heads, mlp_ratio=mlp_ratio, qkv_bias=qkv_bias, layer_scale=layer_scale)
        norm = dict(LN, eps=eps)
        self.blocks = nn.ModuleList(Block(norm=norm, drop_path=drop, **block) for drop in drops)
        self.norm = nn.LayerNorm(dim, eps=eps) if final_norm else nn.Identity()
        init_linear_(self.blocks)
        if class_token:
            nn.init.normal_(self.cls_token, std=0.02)

    def grid(self, images: Tensor) -> tuple[int, int]:
        """(height, width) of images (N, 3, H, W) in cells.

        Raises:
            SettingError: the size of the images is not a multiple of the patch size.
        """
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise SettingError(
                f"ViT: views of {width}x{height} pixels, expected multiples of patch_size={self.patch_size}"
            )
        return height // self.patch_size, width // self.patch_size

    def forward(
        self, images: Tensor, keep: Tensor | None = None, tokens: bool = False, class_token: bool = True
    ) -> tuple[Tensor, ...]:
        """Maps of images (N, 3, H, W), or sequences, one for each of ``out_indices``.

        Args:
            keep: (N, L) indices of the visible cells, in any order; None for all.
            tokens: return sequences instead of maps.
            class_token: False leaves out the class token in this call, as detectors do.

        Returns:
            Maps (N, C, H/p, W/p); with ``tokens``, sequences (N, [1 +] L, C), the class token first.

        Raises:
            ValueError: ``keep`` is given without ``tokens``: visible cells do not form a map.
            SettingError: the size of the images is not a multiple of the patch size.
        """
        grid = self.grid(images)
        if keep is not None and not tokens:
            raise ValueError("ViT: keep is given, tokens is False; a masked image has no map")
        leading = int(self.cls_token is not None)
        positions = resized_table(self.pos_embed, grid, bool(leading))
        x = self.patch_embed(images) + positions[:, leading:]
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[2]))
        leading = leading if class_token else 0
        if leading:
            x = torch.cat([(self.cls_token + positions[:, :1]).expand(x.shape[0], -1, -1), x], 1)
        outputs = []
        for index, block in enumerate(self.blocks[: self.out_indices[-1] + 1]):
            x = run(block, x, self.with_cp)
            if index in self.out_indices:
                outputs.append(self.norm(x))
        return tuple(outputs) if tokens else tuple(cells_to_map(cells[:, leading:], grid) for cells in outputs)

    def maps(self, sequences: Sequence[Tensor], images: Tensor) -> tuple[Tensor, ...]:
        """Maps from the sequences of all cells of images."""
        leading = int(self.cls_token is not None)
        return tuple(cells_to_map(cells[:, leading:], self.grid(images)) for cells in sequences)

    def layer_of(self, name: str) -> int:
        """Depth of a parameter for layer-wise decay of learning rates: 0 before the blocks, i + 1 in block i, one more
        after the blocks."""
        part, _, rest = name.partition(".")
        if part == "blocks":
            return int(rest.partition(".")[0]) + 1
        return len(self.blocks) + 1 if part == "norm" else 0


def cells_to_map(cells: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cells (N, h * w, C) to a map (N, C, h, w)."""
    return cells.mT.unflatten(2, grid)
