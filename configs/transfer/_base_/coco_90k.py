"""Data and schedule of detectron2's "1x" on COCO, as in MoCo's configs and later papers.

90k steps of 8 GPUs x 2 = 16 images (12.3 epochs of 117k), lr 0.02, divided by 10 at 60k and 80k, 1,000 steps of
warm-up; no weight decay for norm layers; short side one of 640 to 800 in steps of 32, 800 in testing, long side at
most 1333.
"""

_base_ = ["mmdet::_base_/datasets/coco_instance.py", "mmdet::_base_/default_runtime.py"]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(1333, side) for side in range(640, 801, 32)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
train_dataloader = dict(
    batch_size=2, sampler=dict(type="InfiniteSampler", shuffle=True), dataset=dict(pipeline=train_pipeline)
)

train_cfg = dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=90000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=90000, milestones=[60000, 80000], gamma=0.1),
]

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
