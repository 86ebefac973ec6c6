"""DETR, ResNet-50, 150 epochs of COCO: MMDet's stock config, starting from a backbone or a whole detector in a file.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/detr_r50_150e.py \
        --data-root coco --init r50.pth --launcher pytorch

`--init detector.pth` starts from a whole detector, such as UP-DETR's; class layers start anew. As in the stock config,
the first stage is frozen and norm layers keep their statistics, which suits a pretrained backbone. For a backbone from
random weights, which would then have no working norms, add `--set model.backbone.frozen_stages=-1
model.backbone.norm_eval=False model.backbone.norm_cfg.requires_grad=True`.

Batch 8 GPUs x 2 = 16, AdamW, lr 1e-4, a tenth of it for the backbone, dropped at epoch 100. Stock, with a supervised
backbone: 39.9. `detr_r50_300e.py` is UP-DETR's schedule; do not compare numbers of the two.
"""

_base_ = "mmdet::detr/detr_r50_8xb2-150e_coco.py"

custom_imports = dict(imports=["densessl.compat", "densessl.engine", "densessl.finetune"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

model = dict(backbone=dict(init_cfg=None))
