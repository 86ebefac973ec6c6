"""Faster R-CNN R50-C4 on Pascal VOC 07+12 as the papers of MoCo, DenseCL and PixPro transfer to it ("VOC-C4").

    python tools/train.py configs/transfer/voc/faster_rcnn_r50_c4_voc0712.py --launcher pytorch \
        --data-root VOCdevkit --cfg-options custom_hooks.0.checkpoint=r50.pth

Against MMDet's stock config: stride in the 3x3 convolution, RGB, synchronised BN that trains, nothing frozen, no
supervised weights, 24k steps. Against detectron2, which the papers use: no extra BN behind res5, and no PreciseBN.

Batch 8 GPUs x 2 = 16, lr 0.02. `pascal_voc/mAP` is the papers' AP (IoU 0.5 to 0.95, 11 points), `AP50` and `AP75` theirs.
Published with DenseCL on ImageNet, 200 epochs: AP 58.7 (MoCo v2 57.0), mean of 5 runs.
"""

_base_ = "mmdet::pascal_voc/faster-rcnn_r50-caffe-c4_ms-18k_voc0712.py"

custom_imports = dict(imports=["densessl.compat", "densessl.transfer"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

norm_cfg = dict(type="SyncBN", requires_grad=True)  # MMEngine makes it plain BN where there is one process
resnet = dict(style="pytorch", norm_cfg=norm_cfg, norm_eval=False, init_cfg=None)
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(frozen_stages=-1, **resnet),
    roi_head=dict(shared_head=resnet),
)

train_cfg = dict(max_iters=24000, val_interval=24000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=24000, milestones=[18000, 22000], gamma=0.1),
]
val_evaluator = dict(iou_thrs=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
test_evaluator = val_evaluator
