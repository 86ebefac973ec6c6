"""Mask R-CNN R50-FPN, 24k steps, on Cityscapes as in the papers of DetCo and RegionCL (protocol "CS-inst").

    python tools/cityscapes.py data/cityscapes
    torchrun --nproc_per_node 8 tools/train.py configs/transfer/cityscapes/mask-rcnn_r50_fpn_24k.py --launcher pytorch \
        --data-root data/cityscapes --init r50.pth

Differences from MMDet's stock config: no supervised weights, neither ImageNet's nor COCO's; synchronised BN in backbone
and FPN, all of it trained; detectron2's schedule, short sides, L1 loss of boxes, and no weight decay for norm layers.
The heads have no norm; the box head has two linear layers. Reconstructed: warm-up over 1000 steps, detectron2's
default, and BN statistics estimated from 200 batches before the test, as on COCO.

Batch 8 GPUs x 1 = 8, lr 0.01. Papers report the AP of Cityscapes' own evaluation, `cityscapes/mAP`, which needs
`pip install -e '.[cityscapes]'`; without it there is `coco/segm_mAP`, which is not comparable with theirs.
Published with DetCo on ImageNet: mask AP 34.7.
"""

_base_ = "mmdet::cityscapes/mask-rcnn_r50_fpn_1x_cityscapes.py"

from importlib.util import find_spec  # noqa: E402  MMEngine 0.10.7 wants `_base_` before any import

custom_imports = dict(imports=["densessl.compat", "densessl.finetune"])
custom_hooks = [
    dict(type="densessl.LoadBackboneHook", checkpoint=None),
    dict(type="densessl.PreciseBNHook", batches=200),
]
load_from = None

data_root = "data/cityscapes/"

norm_cfg = dict(type="SyncBN", requires_grad=True)  # MMEngine turns it into plain BN with one process
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm_cfg, norm_eval=False, init_cfg=None),
    neck=dict(norm_cfg=norm_cfg),
    roi_head=dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type="L1Loss", loss_weight=1.0))),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="RandomChoiceResize", scales=[(2048, side) for side in range(800, 1025, 32)], keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
# The schedule counts iterations, so the data set need not be repeated.
train_dataloader = dict(
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(times=1, dataset=dict(pipeline=train_pipeline)),
)

annotations = data_root + "annotations/instancesonly_filtered_gtFine_val.json"
val_evaluator = [dict(type="CocoMetric", ann_file=annotations, metric=["bbox", "segm"])]
if find_spec("cityscapesscripts"):
    val_evaluator.append(dict(type="CityScapesMetric", seg_prefix=data_root + "gtFine/val", outfile_prefix=None))
test_evaluator = val_evaluator

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))  # lr 0.01 is the stock config's
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=24000, val_interval=8000)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=24000, milestones=[18000], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=8)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=8000))
log_processor = dict(by_epoch=False)
