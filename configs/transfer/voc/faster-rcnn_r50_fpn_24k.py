"""Faster R-CNN R50-FPN, 24k steps of Pascal VOC 07+12: the schedule of "VOC-C4" for a pyramid.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/voc/faster-rcnn_r50_fpn_24k.py \
        --data-root VOCdevkit --init r50.pth \
        --launcher pytorch

None of the papers on this library's methods reports it: compare its numbers only with each other, not with those of C4.
Data and schedule are those of `faster-rcnn_r50_c4_24k.py`; differences from MMDet's stock detector: synchronised BN in
backbone and FPN, all of it trained, no supervised weights, BN statistics estimated before each test.

Batch 8 GPUs x 2 = 16, lr 0.02.
"""

_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "../_base_/voc0712_24k.py", "../_base_/fine_tune.py"]

norm_cfg = _base_.trained_sync_bn
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(bbox_head=dict(num_classes=20)),
)
