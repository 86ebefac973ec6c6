"""Small detectors of every family, and batches of random regions for them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.data.batch import Batch
from densessl.detectors import DetectorPretraining
from tests.golden.detreg import DEFORMABLE, DETR, region_batch

ONE = {"neck.in_channels": [64]}
MANY = {"neck.in_channels": [16, 32, 64]}
FAMILIES = {
    "detr": (DETR, ONE),
    "conditional": ("mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py", ONE),
    "dab": ("mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py", ONE),
    "deformable": (DEFORMABLE, MANY),
    "two_stage": ("mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py", MANY),
    "dino": ("mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py", MANY),
}
ONE_STAGE = ("detr", "conditional", "dab", "deformable")
SMALL = {
    "encoder.num_layers": 1,
    "decoder.num_layers": 2,
    "encoder.layer_cfg.ffn_cfg.feedforward_channels": 64,
    "decoder.layer_cfg.ffn_cfg.feedforward_channels": 64,
    "num_queries": 20,
    "backbone.depth": 18,
    "backbone.base_channels": 8,
}
DETREG = dict(type="DETReg", teacher=dict(type="ResNet", depth=18, out_indices=(1,)), allow_random_teacher=True)


def small(family: str, pretext: dict, seed: int = 0, **options) -> DetectorPretraining:
    """In training, without dropout, heads and queries moved off the zeros that some begin with."""
    torch.manual_seed(seed)
    name, own = FAMILIES[family]
    model = DetectorPretraining(name, pretext, {**SMALL, **own, **options}).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    with torch.no_grad():
        for parameter in model.detector.bbox_head.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return model


def random_batch(counts: Sequence[int], seed: int = 0, dtype: torch.dtype = torch.float32) -> Batch:
    """Images of 64 pixels with so many regions each."""
    generator = torch.Generator().manual_seed(seed)
    views = torch.randn(len(counts), 3, 64, 64, generator=generator, dtype=dtype)
    boxes = [random_boxes(count, generator) for count in counts]
    patches = torch.randn(sum(counts), 3, 32, 32, generator=generator, dtype=dtype)
    return region_batch(views, boxes, patches, [(64, 64)] * len(counts))


def random_boxes(count: int, generator: torch.Generator) -> Tensor:
    """Centres and sides, relative, inside the image (count, 4)."""
    centres, spread = (torch.rand(count, 2, generator=generator) for _ in range(2))
    return torch.cat([0.3 + 0.4 * centres, 0.1 + 0.5 * spread], 1)


def decoded(model: DetectorPretraining, batch: Batch) -> Tensor:
    """What the decoder makes of a batch, (layers, N, Q, C)."""
    from densessl.detectors.samples import data_samples

    with torch.no_grad():
        maps = model.detector.extract_feat(batch.views[0])
        return model.transform(maps, data_samples(batch), batch)["hidden_states"]
