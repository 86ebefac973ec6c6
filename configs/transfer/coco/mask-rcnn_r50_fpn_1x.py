"""Mask R-CNN R50-FPN with the box head of two linear layers, 90k steps of COCO: protocol "COCO-FPN-1x(2fc)" of DetCo
and RegionCL.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/mask-rcnn_r50_fpn_1x.py \
        --data-root coco --init r50.pth \
        --launcher pytorch

Differences from MMDet's stock detector: synchronised BN in backbone and FPN, all of it trained; nothing frozen; no
supervised weights; BN statistics estimated from 200 batches before the test; 90k steps and several scales. Do not
compare its numbers with those of `mask-rcnn_r50_fpn_4conv1fc_1x.py`, which has another head.

Batch 8 GPUs x 2 = 16, lr 0.02. Published, box AP / mask AP: RegionCL-M 40.1 / 36.3, RegionCL-D 40.4 / 36.7; DetCo
39.5 / 35.9; MoCo v2 200 epochs 38.9 / 35.5; supervised 38.9 / 35.4.
"""

_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "../_base_/coco_90k.py", "../_base_/fine_tune.py"]

norm_cfg = _base_.trained_sync_bn
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg),
)
