"""DINO with four scales, ResNet-50, 12 epochs of COCO: MMDet's stock config, starting from a backbone or a whole
detector
in a file.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/dino_r50_12e.py \
        --data-root coco --init r50.pth --launcher pytorch

`--init detector.pth` starts from a whole detector of DETReg; class layers start anew. In files of MMDetection 3.3 and
of the official DINO, one layer has another shape than in onedl-mmdetection; the error message says what to set. As in
the stock config, the first stage is frozen and norm layers keep their statistics, which suits a pretrained backbone.
For a backbone from random weights, which would then have no working norms, add `--set model.backbone.frozen_stages=-1
model.backbone.norm_eval=False model.backbone.norm_cfg.requires_grad=True`.

Batch 8 GPUs x 2 = 16, AdamW, lr 1e-4, a tenth of it for the backbone, dropped at epoch 11. Stock, with a supervised
backbone: 49.0.
"""

_base_ = "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py"

custom_imports = dict(imports=["densessl.compat", "densessl.engine", "densessl.finetune"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

model = dict(backbone=dict(init_cfg=None))
