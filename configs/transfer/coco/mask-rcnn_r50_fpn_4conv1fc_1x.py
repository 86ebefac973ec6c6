"""Mask R-CNN R50-FPN with the box head of four convolutions and one linear layer, 90k steps of COCO: protocol
"COCO-FPN-1x(4conv)" of DenseCL, PixPro and CCOP.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/mask-rcnn_r50_fpn_4conv1fc_1x.py \
        --data-root coco --init r50.pth \
        --launcher pytorch

Differences from MMDet's stock detector: synchronised BN in backbone, FPN, box and mask head, all of it trained; the box
head; nothing frozen; no supervised weights; BN statistics estimated from 200 batches before the test; 90k steps and
several scales. Do not compare its numbers with those of `mask-rcnn_r50_fpn_1x.py`.

Batch 8 GPUs x 2 = 16, lr 0.02. Published, box AP / mask AP: DenseCL on ImageNet, 200 epochs, 40.3 / 36.4 (MoCo v2
39.8 / 36.1); PixPro 100 epochs 40.8 / 36.8, with its instance branch 41.3 / 37.1, and 400 epochs of both 41.4 / 37.4.
"""

_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "../_base_/coco_90k.py", "../_base_/fine_tune.py"]

norm_cfg = _base_.trained_sync_bn
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
