"""ViTDet for MMDetection: a plain ViT with windowed attention, and a pyramid made from its single map (Li et al.,
Exploring Plain Vision Transformer Backbones for Object Detection, ECCV 2022, arXiv 2203.16527).

``custom_imports = dict(imports=["densessl.compat", "densessl.finetune"])`` makes ``densessl.ViTDet``,
``densessl.SimpleFPN`` and the norm ``densessl.LN2d`` available in a stock config. Arguments and tensor names are those
of MMDetection's ``projects/ViTDet``, which its wheel does not contain.
"""

from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torchvision.models.convnext import LayerNorm2d

from densessl.branches.positions import resized_table
from densessl.branches.transformer import LN, Attention, Block, init_linear_, run
from densessl.branches.vit import PatchEmbed, ViT
from densessl.errors import SettingError
from densessl.registry import MODELS


@MODELS.register_module()
class LN2d(LayerNorm2d):
    """Layer norm over the channels of each cell of (N, C, H, W), for ``norm_cfg`` in MMDetection. MMCV's ``LN`` is for
    sequences."""

    _abbr_ = "norm_layer"  # the name that MMCV gives the norms in the project's checkpoints


class RelativeAttention(Attention):
    """Self-attention between the cells of maps, within windows or over the whole map, with the decomposed relative
    positions of MViTv2 (arXiv 2112.01526): the logit of a query q and a key gains ``q . R_h[dy] + q . R_w[dx]``, where
    q is not scaled.

    Further keys: ``rel_pos_h``, ``rel_pos_w`` (2 * side - 1, dim / heads), initially zero.

    Args:
        dim, heads, qkv_bias: see :class:`Attention`.
        side: side in cells of the square that the tables are made for; they are resampled for others.
        window: side of the windows in cells; None for attention over the whole map.
    """

    def __init__(self, dim: int, heads: int, qkv_bias: bool, side: int, window: int | None = None):
        super().__init__(dim, heads, qkv_bias)
        self.window = window
        self.rel_pos_h, self.rel_pos_w = (nn.Parameter(torch.zeros(2 * side - 1, dim // heads)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape. Windows that extend past the bottom or right edge are padded with zero
        cells, which are attended to like others, as in Detectron2."""
        if self.window is None:
            return self.attend(x)
        return join_windows(self.attend(split_windows(x, self.window)), x.shape[1:3])

    def attend(self, x: Tensor) -> Tensor:
        """Let each cell of maps (N, H, W, C) attend to all cells of its map."""
        grid = x.shape[1:3]
        q, k, v = self.split(x.flatten(1, 2))
        bias = relative_bias(q.unflatten(2, grid), self.rel_pos_h, self.rel_pos_w)
        return self.join(F.scaled_dot_product_attention(q, k, v, attn_mask=bias)).unflatten(1, grid)


def relative_bias(queries: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor) -> Tensor:
    """Return what relative positions add to the logits, (N, heads, H * W, H * W), for queries (N, heads, H, W, D).

    Args:
        rel_pos_h, rel_pos_w: (L, D); the middle row is for distance 0, later ones for queries below or right of keys.
    """
    height, width = queries.shape[2:4]
    rows = torch.einsum("nhyxd,ykd->nhyxk", queries, _by_distance(rel_pos_h, height))
    columns = torch.einsum("nhyxd,xkd->nhyxk", queries, _by_distance(rel_pos_w, width))
    return (rows[..., :, None] + columns[..., None, :]).flatten(4, 5).flatten(2, 3)


def _by_distance(table: Tensor, side: int) -> Tensor:
    """Return the rows (side, side, D) of a table for each query and key on a line of ``side`` cells. The table is
    resampled if it is for another number of cells."""
    if len(table) != 2 * side - 1:
        table = F.interpolate(table.T[None], 2 * side - 1, mode="linear")[0].T
    cells = torch.arange(side, device=table.device)
    return table[cells[:, None] - cells + side - 1]


def split_windows(x: Tensor, side: int) -> Tensor:
    """Split maps (N, H, W, C), zero-padded at the bottom and right, into windows (N * windows, side, side, C)."""
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
    return x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(0, 2)


def join_windows(windows: Tensor, size: Sequence[int]) -> Tensor:
    """The inverse of :func:`split_windows`, for maps of ``size`` (H, W)."""
    (height, width), side = size, windows.shape[1]
    windows = windows.unflatten(0, (-1, -(-height // side), -(-width // side)))
    return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)[:, :height, :width]


@MODELS.register_module()
class ViTDet(BaseModule):
    """A plain ViT for detection. It outputs one map of stride ``patch_size``, and has no final norm or class token.

    Keys are those of :class:`densessl.branches.vit.ViT` without ``cls_token``, and ``blocks.{i}.attn.rel_pos_{h,w}``.
    The position embedding is learnt, and resampled for grids of other sizes.

    Args:
        img_size: side in pixels of the training images; sets the number of relative positions.
        patch_size: side of a patch in pixels.
        embed_dim, depth, num_heads: width of the tokens, number of blocks, attention heads of a block.
        mlp_ratio: width of the blocks' hidden layers over ``embed_dim``.
        qkv_bias: whether queries, keys and values have biases.
        layer_scale: initial value of LayerScale; None for none.
        drop_path_rate: drop path rate of the last block; it grows linearly from 0 at the first.
        norm_cfg: norm of the blocks. Features differ if its ``eps`` is not that of pretraining; the default is MAE's
            and SIM's.
        window_size: side of the windows, in cells.
        window_block_indexes: blocks with windowed attention; the others attend to all cells.
        pretrain_img_size: side in pixels of the images that the position embedding was made for.
        pretrain_use_cls_token: whether that embedding begins with a row for a class token, which is kept but not used.
        with_cp: recompute each block's activations in the backward pass instead of storing them.
        init_cfg: as for any module of MMDetection.

    Raises:
        SettingError: a block of ``window_block_indexes`` does not exist, or ``pretrain_img_size`` is no multiple of
            ``patch_size``.
    """

    layer_of = ViT.layer_of

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float | None = None,
        drop_path_rate: float = 0.0,
        norm_cfg: dict[str, Any] = LN,
        window_size: int = 14,
        window_block_indexes: Collection[int] = (0, 1, 3, 4, 6, 7, 9, 10),
        pretrain_img_size: int = 224,
        pretrain_use_cls_token: bool = True,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ):
        super().__init__(init_cfg)
        if not set(window_block_indexes) <= set(range(depth)):
            raise SettingError(f"ViTDet: window_block_indexes={window_block_indexes}, expected numbers below {depth}")
        if pretrain_img_size % patch_size:
            raise SettingError(f"ViTDet: pretrain_img_size={pretrain_img_size}, expected a multiple of {patch_size}")
        self.patch_size, self.window_size, self.with_cp = patch_size, window_size, with_cp
        self.pretrain_use_cls_token = pretrain_use_cls_token
        self.out_channels, self.out_strides = (embed_dim,), (patch_size,)
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        rows = int(pretrain_use_cls_token) + (pretrain_img_size // patch_size) ** 2
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, rows, embed_dim), std=0.02))
        windows = [window_size if i in set(window_block_indexes) else None for i in range(depth)]
        block = dict(dim=embed_dim, heads=num_heads, mlp_ratio=mlp_ratio, norm=norm_cfg, layer_scale=layer_scale)
        self.blocks = nn.ModuleList(
            Block(
                **block,
                drop_path=drop_path_rate * i / max(depth - 1, 1),
                attention=RelativeAttention(embed_dim, num_heads, qkv_bias, window or img_size // patch_size, window),
            )
            for i, window in enumerate(windows)
        )
        init_linear_(self.blocks)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Return one map (N, C, h, w) of images (N, 3, H, W), with h = ceil(H / patch_size). Images are zero-padded at
        the bottom and right to a multiple of the patch size."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.patch_size, 0, -height % self.patch_size))
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        leading = self.pretrain_use_cls_token
        positions = resized_table(self.pos_embed, grid, leading)[:, int(leading) :]
        x = (self.patch_embed(images) + positions).unflatten(1, grid)
        for block in self.blocks:
            x = run(block, x, self.with_cp)
        return (x.permute(0, 3, 1, 2),)


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """ViTDet's pyramid: the backbone's single map at 4, 2, 1 and 1/2 times its size, each made separately (section 3).

    Keys ``fpn1.{0,1,3}.*``, ``fpn2.0.*``, ``lateral_convs.{i}.*`` and ``fpn_convs.{i}.*``, with i = 0 for
    ``start_level``.

    Args:
        backbone_channel: channels of the backbone's map, a multiple of 4.
        out_channels: channels of every output.
        num_outs: number of outputs, fine to coarse, at least 4 - ``start_level``; each further one takes every second
            cell of the previous one.
        start_level: index of the first of the four sizes to make: 1 for a RetinaNet, whose finest stride is 8.
        norm_cfg: norm of all convolutions, and between the first two deconvolutions.
        init_cfg: as for any module of MMDetection.

    Raises:
        SettingError: an argument is out of its range.
    """

    def __init__(
        self,
        backbone_channel: int,
        out_channels: int = 256,
        num_outs: int = 5,
        start_level: int = 0,
        norm_cfg: dict[str, Any] = dict(type="densessl.LN2d", eps=1e-6),  # noqa: B006
        init_cfg: dict[str, Any] | None = None,
    ):
        from mmcv.cnn import ConvModule, build_norm_layer  # of the det extra

        super().__init__(init_cfg)
        if backbone_channel % 4 or not 0 <= start_level < 4 or num_outs < 4 - start_level:
            raise SettingError(
                f"SimpleFPN: backbone_channel={backbone_channel}, start_level={start_level}, num_outs={num_outs}, "
                "expected a multiple of 4, one of 0 to 3, and at least 4 - start_level"
            )
        half, quarter = backbone_channel // 2, backbone_channel // 4
        self.start_level, self.num_outs = start_level, num_outs
        enlarge = [
            nn.ConvTranspose2d(backbone_channel, half, 2, 2),
            build_norm_layer(norm_cfg, half)[1],
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, 2),
        ]
        sizes = [enlarge, [nn.ConvTranspose2d(backbone_channel, half, 2, 2)], [nn.Identity()], [nn.MaxPool2d(2, 2)]]
        for i, layers in enumerate(sizes[start_level:], start_level + 1):
            self.add_module(f"fpn{i}", nn.Sequential(*layers))
        plain = dict(norm_cfg=norm_cfg, act_cfg=None)
        widths = (quarter, half, backbone_channel, backbone_channel)[start_level:]
        self.lateral_convs = nn.ModuleList(ConvModule(width, out_channels, 1, **plain) for width in widths)
        self.fpn_convs = nn.ModuleList(ConvModule(out_channels, out_channels, 3, padding=1, **plain) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Turn the backbone's single map (N, C, H, W), in a sequence, into ``num_outs`` maps (N, out_channels, h, w),
        where h is 4H, 2H, H, H / 2 …, from ``start_level`` on."""
        (x,) = maps
        levels = [getattr(self, f"fpn{i + 1}")(x) for i in range(self.start_level, 4)]
        outs = [out(lateral(level)) for level, lateral, out in zip(levels, self.lateral_convs, self.fpn_convs)]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return tuple(outs)
