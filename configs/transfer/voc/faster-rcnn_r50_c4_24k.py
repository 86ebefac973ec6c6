"""Faster R-CNN R50-C4, 24k steps of Pascal VOC 07+12: protocol "VOC-C4" of MoCo, DenseCL, PixPro and DetCo.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/voc/faster-rcnn_r50_c4_24k.py \
        --data-root VOCdevkit --init r50.pth \
        --launcher pytorch

Differences from MMDet's stock C4: stride in the 3x3 convolution, RGB, synchronised BN that trains, nothing frozen, no
supervised weights; a norm after the stage that processes the regions; BN statistics estimated from 200 batches before
each test. Difference from detectron2, which the papers use: objects marked "difficult" are left out of the training
losses instead of trained on.

Batch 8 GPUs x 2 = 16, lr 0.02. Published, means of 5 runs, AP (AP50, AP75): DenseCL on ImageNet, 200 epochs, 58.7;
PixPro 100 epochs 58.8 (83.0, 66.5), 400 epochs 60.2 (83.8, 67.7); DetCo 200 epochs 57.8 (82.6, 64.2); MoCo v2 200
epochs 57.0, 800 epochs 57.6 (82.7, 64.4).
"""

_base_ = ["mmdet::_base_/models/faster-rcnn_r50-caffe-c4.py", "../_base_/voc0712_24k.py", "../_base_/fine_tune.py"]

norm_cfg = _base_.trained_sync_bn
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(style="pytorch", frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    roi_head=dict(
        shared_head=dict(_delete_=True, type="densessl.Res5Head", depth=50, norm_cfg=norm_cfg),
        bbox_head=dict(num_classes=20),
    ),
)
