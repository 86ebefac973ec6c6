"""Deformable DETR, ResNet-50, 50 epochs of COCO: the fine-tuning of DETReg, which is MMDet's stock config, starting
from a
backbone or a whole detector in a file.

    torchrun --nnodes 2 --nproc_per_node 8 tools/train.py configs/transfer/coco/deformable-detr_r50_50e.py \
        --data-root coco --init r50.pth \
        --launcher pytorch

`--init detector.pth` starts from a whole detector of DETReg or UP-DETR; class layers start anew. As in the stock
config, the first stage is frozen and norm layers keep their statistics, which suits a pretrained backbone. For a
backbone from random weights, which would then have no working norms, add `--set model.backbone.frozen_stages=-1
model.backbone.norm_eval=False model.backbone.norm_cfg.requires_grad=True`.

Batch 16 GPUs x 2 = 32 (DETReg: 8 x 4), AdamW, lr 2e-4, a tenth of it for backbone, sampling offsets and reference
points, dropped at epoch 40. Stock, with a supervised backbone: 44.3. Published, to be confirmed: DETReg 45.5, SwAV
45.2, supervised 44.5.
"""

_base_ = "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"

custom_imports = dict(imports=["densessl.compat", "densessl.engine", "densessl.finetune"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

model = dict(backbone=dict(init_cfg=None))
