"""Data and schedule of MoCo's fine-tuning on Pascal VOC, which later papers keep.

trainval of 2007 and 2012 (16,551 images), tested on test2007. 24k steps of 8 GPUs x 2 = 16 images (23 epochs), lr 0.02,
divided by 10 at 18k and 22k, 100 steps of warm-up; no weight decay for norm layers; short side one of 480 to 800 in
steps of 32, 800 in testing, long side at most 1333. `pascal_voc/mAP` is the papers' AP: over IoU 0.5 to 0.95, by 11
points.
"""

_base_ = ["mmdet::_base_/datasets/voc0712.py", "mmdet::_base_/default_runtime.py"]

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="RandomChoiceResize", scales=[(1333, side) for side in range(480, 801, 32)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(1333, 800))

train_dataloader = dict(
    batch_size=2,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        _delete_=True,
        type="ConcatDataset",
        ignore_keys=["dataset_type"],  # the two years differ in it
        datasets=[
            dict(
                type="VOCDataset",
                data_root=_base_.data_root,
                ann_file=f"{year}/ImageSets/Main/trainval.txt",
                data_prefix=dict(sub_data_root=f"{year}/"),
                filter_cfg=dict(filter_empty_gt=True, min_size=32),
                pipeline=train_pipeline,
            )
            for year in ("VOC2007", "VOC2012")
        ],
    ),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(iou_thrs=[0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
test_evaluator = val_evaluator

train_cfg = dict(type="IterBasedTrainLoop", max_iters=24000, val_interval=24000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=24000, milestones=[18000, 22000], gamma=0.1),
]

default_hooks = dict(checkpoint=dict(by_epoch=False, interval=6000, max_keep_ckpts=2))
log_processor = dict(by_epoch=False)
