"""Stock MMDetection detectors, shrunk until a training step takes a fraction of a second on one core."""

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from torch import nn

CONFIGS = {
    "Faster R-CNN": "faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py",
    "Mask R-CNN": "mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py",
    "RetinaNet": "retinanet/retinanet_r50_fpn_1x_coco.py",
    "FCOS": "fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py",
    "DETR": "detr/detr_r50_8xb2-150e_coco.py",
    "Conditional DETR": "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
    "DAB-DETR": "dab_detr/dab-detr_r50_8xb2-50e_coco.py",
    "Deformable DETR": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "DINO": "dino/dino-4scale_r50_8xb2-12e_coco.py",
}

CLASSES = 3
WIDTHS = ("embed_dims", "feat_channels", "conv_out_channels", "fc_out_channels", "feedforward_channels", "out_channels")
# New values by key, wherever the key occurs: one layer of everything, few proposals, every score kept, no download.
SMALL = {
    "num_classes": CLASSES,
    "num_layers": 1,
    "stacked_convs": 1,
    "num_convs": 1,
    "num_queries": 12,
    "num_dn_queries": 4,
    "num": 16,
    "nms_pre": 40,
    "max_per_img": 10,
    "score_thr": 0.0,
    "init_cfg": None,
}


def shrink(config, width: int = 32):
    """Make a model config small: `SMALL`, features of ``width`` channels, and a ResNet-18 of at most 64."""
    if isinstance(config, list | tuple):
        return type(config)(shrink(item, width) for item in config)
    if not isinstance(config, dict):
        return config
    values = SMALL | dict.fromkeys(WIDTHS, width) | {"num_feats": width // 2}
    small = {key: values.get(key, shrink(value, width)) for key, value in config.items()}
    if small.get("type") == "ResNet":
        # mmdet starts each residual branch at zero, where its first convolution has no gradient yet.
        small.update(depth=18, base_channels=8, style="pytorch", frozen_stages=-1, zero_init_residual=False)
    if small.get("type", "").endswith(("DETRHead", "DINOHead")):
        small["embed_dims"] = width
    channels = small.get("in_channels")
    if channels == 256:
        small["in_channels"] = width
    elif channels is not None:  # of a neck: the backbone's 256 x 2^k are now 8 x 2^k
        small["in_channels"] = [count // 32 for count in channels]
    return small


def build(name: str) -> nn.Module:
    """The named detector with random weights, in training mode; the same weights for each call."""
    torch.manual_seed(0)
    # Conditional DETR's decoder, and that of DINO in MMDetection 3.3, encode positions in 256 channels whatever their
    # configs say.
    width = 256 if name in ("Conditional DETR", "DINO") else 32
    config = ConfigDict(shrink(get_config(f"mmdet::{CONFIGS[name]}").model.to_dict(), width))
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config)
    model.init_weights()
    return model.train()


def batch(sizes: tuple[tuple[int, int], ...] = ((64, 96), (96, 80)), objects: int = 3) -> dict:
    """Images of different sizes with boxes, labels and masks, as MMDetection's pipeline packs them."""
    draws = np.random.default_rng(3)
    inputs, samples = [], []
    for height, width in sizes:
        corner = draws.uniform(0, 0.5, (objects, 2))
        boxes = np.concatenate([corner, corner + draws.uniform(0.3, 0.5, (objects, 2))], axis=1)
        boxes = (boxes * [width, height, width, height]).astype(np.float32)
        masks = np.zeros((objects, height, width), dtype=np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.astype(int)):
            mask[y1:y2, x1:x2] = 1
        instances = InstanceData(
            bboxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(draws.integers(0, CLASSES, objects)),
            masks=BitmapMasks(masks, height, width),
        )
        shape = {"img_shape": (height, width), "ori_shape": (height, width), "scale_factor": (1.0, 1.0)}
        samples.append(DetDataSample(metainfo=shape | {"img_id": len(samples)}, gt_instances=instances))
        inputs.append(torch.from_numpy(draws.integers(0, 256, (3, height, width), dtype=np.uint8)))
    return {"inputs": inputs, "data_samples": samples}
