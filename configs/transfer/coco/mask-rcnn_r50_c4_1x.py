"""Mask R-CNN R50-C4, 90k steps of COCO: protocol "COCO-C4-1x" of MoCo, PixPro, DetCo and RegionCL.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/mask-rcnn_r50_c4_1x.py \
        --data-root coco --init r50.pth \
        --launcher pytorch

Differences from MMDet's stock C4: stride in the 3x3 convolution, RGB, synchronised BN that trains, nothing frozen, no
supervised weights; a norm after the stage that processes the regions; BN statistics estimated from 200 batches before
the test; anchors that leave the image are used, as in detectron2; 90k steps and several scales.

Batch 8 GPUs x 2 = 16, lr 0.02. Published, box AP / mask AP: PixPro 100 epochs 40.0 / 34.8, 400 epochs 40.5 / 35.3;
RegionCL-M 39.8 / 34.8, RegionCL-D 40.3 / 35.2; DetCo 39.4 / 34.4; MoCo v2 200 epochs 38.9 / 34.2, 800 epochs 39.5 /
34.5; supervised 38.2 / 33.3.
"""

_base_ = ["mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py", "../_base_/coco_90k.py", "../_base_/fine_tune.py"]

norm_cfg = _base_.trained_sync_bn
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(style="pytorch", frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    roi_head=dict(shared_head=dict(_delete_=True, type="densessl.Res5Head", depth=50, norm_cfg=norm_cfg)),
    train_cfg=dict(rpn=dict(allowed_border=-1)),
)
