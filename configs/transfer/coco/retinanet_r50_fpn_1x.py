"""RetinaNet R50-FPN, 90k steps of COCO: protocol "COCO-Retina" of DetCo and RegionCL.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/retinanet_r50_fpn_1x.py \
        --data-root coco --init r50.pth \
        --launcher pytorch

Differences from MMDet's stock detector: synchronised BN in backbone and FPN, all of it trained; nothing frozen; no
supervised weights; BN statistics estimated from 200 batches before the test; 90k steps and several scales.
Reconstructed: the norm of the FPN and the new statistics, which are those of the papers' other detectors. Against
detectron2: the box loss is L1 without a quadratic part (theirs below 0.1), and P6 and P7 have norms.

Batch 8 GPUs x 2 = 16, lr 0.01. Published box AP: RegionCL-M 38.4, RegionCL-D 38.8; DetCo 38.0; MoCo v2 200 epochs
37.2; supervised 37.4.
"""

_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py", "../_base_/coco_90k.py", "../_base_/fine_tune.py"]

norm_cfg = _base_.trained_sync_bn
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg),
)

# Boxes without masks.
train_pipeline = _base_.train_pipeline
train_pipeline[1].update(with_mask=False)
test_pipeline = _base_.test_pipeline
test_pipeline[2].update(with_mask=False)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_evaluator = dict(metric="bbox")
test_evaluator = dict(metric="bbox")

optim_wrapper = dict(optimizer=dict(lr=0.01))
