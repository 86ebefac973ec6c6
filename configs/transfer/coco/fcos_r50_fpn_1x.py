"""FCOS R50-FPN, 90k steps of COCO, as in DenseCL's paper, with AdelaiDet.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/fcos_r50_fpn_1x.py \
        --data-root coco --init r50.pth --launcher pytorch

The head is AdelaiDet's, as in MMDet's stock variant: centre sampling, normalised distances, centreness in the
regression branch, GIoU, group norm. Differences from that variant: stride in the 3x3 convolution, RGB, synchronised BN
in backbone and FPN, all of it trained; nothing frozen; no supervised weights; BN statistics estimated from 200 batches
before the test; 90k steps, several scales; biases have the learning rate and weight decay of weights.

Batch 8 GPUs x 2 = 16, lr 0.01. Published box AP: DenseCL on ImageNet, 200 epochs, 40.9; MoCo v2 40.3; supervised
39.9.
"""

_base_ = "mmdet::fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py"

custom_imports = dict(imports=["densessl.compat", "densessl.engine", "densessl.finetune"])
custom_hooks = [
    dict(type="densessl.LoadBackboneHook", checkpoint=None),
    dict(type="densessl.PreciseBNHook", batches=200),
]

norm_cfg = dict(type="SyncBN", requires_grad=True)  # MMEngine turns it into plain BN with one process
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(style="pytorch", frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg),
)

# As in `_base_/coco_90k.py`, which cannot be combined with a whole stock config.
train_pipeline = _base_.train_pipeline
train_pipeline[2] = dict(
    type="RandomChoiceResize", scales=[(1333, side) for side in range(640, 801, 32)], keep_ratio=True
)
train_dataloader = dict(sampler=dict(type="InfiniteSampler"), dataset=dict(pipeline=train_pipeline))
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=90000, val_interval=90000)
optim_wrapper = dict(
    optimizer=dict(lr=0.01, weight_decay=1e-4), paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0), clip_grad=None
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=90000, milestones=[60000, 80000], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
