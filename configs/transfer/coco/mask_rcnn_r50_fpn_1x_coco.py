"""Mask R-CNN R50-FPN 1x on COCO as the papers of DenseCL, PixPro and CCOP transfer to it (protocol "COCO-FPN-1x(4conv)").

    python tools/train.py configs/transfer/coco/mask_rcnn_r50_fpn_1x_coco.py \
        --cfg-options custom_hooks.0.checkpoint=r50.pth

Against MMDet's stock config: synchronised BN in backbone, FPN, box and mask head, all of it trained; a box head of four
convolutions and one linear layer; nothing frozen; no supervised weights. Their numbers must not be ranked with those
of DetCo and RegionCL, which keep the head of two linear layers and BN in backbone and FPN only.

Batch 8 GPUs x 2 = 16, lr 0.02, 12 epochs = 88k steps (theirs: detectron2's 90k), short side 640 to 800. Published with
DenseCL on ImageNet, 200 epochs: box AP 40.3, mask AP 36.4 (MoCo v2 39.8 / 36.1).
"""

_base_ = "mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py"

custom_imports = dict(imports=["densessl.compat", "densessl.transfer"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

norm_cfg = dict(type="SyncBN", requires_grad=True)  # MMEngine makes it plain BN where there is one process
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(1333, side) for side in range(640, 801, 32)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
