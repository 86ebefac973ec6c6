"""RetinaNet, ResNet-18, small: a fine-tuning run for a CPU, on any data set in COCO's format.

    CLASSES=fox,owl python tools/train.py configs/transfer/coco/retinanet_r18_256_coco.py --data-root DIR --init r18.pth

DIR holds annotations/instances_{train,val}2017.json, train2017/ and val2017/. The environment variable CLASSES lists
category names, separated by commas; objects of other categories are ignored, and a name that the file lacks is an error
that lists its categories. Without it, the classes are COCO's eighty.

Model, schedule and batch (8, one process) are those of `../voc/retinanet_r18_256_voc.py`, except for the box loss,
which is GIoU: with small boxes and a short schedule, L1 hardly moves them. With few photos and many classes AP says
little; `coco/bbox_AR@100`, the mean recall over IoU 0.5 to 0.95, is less noisy. Areas are those of boxes, not of masks.
"""

_base_ = "../voc/retinanet_r18_256_voc.py"

custom_imports = dict(
    imports=["densessl.compat", "densessl.engine", "densessl.finetune", "densessl.finetune.categories"]
)

data_root = "data/coco"
names = "{{$CLASSES:coco}}"
classes = None if names == "coco" else [name.strip() for name in names.split(",")]
model = dict(
    bbox_head=dict(
        num_classes=len(classes) if classes else 80,
        reg_decoded_bbox=True,
        loss_bbox=dict(_delete_=True, type="GIoULoss", loss_weight=2.0),
    )
)

dataset = dict(type="densessl.NamedCocoDataset", data_root=data_root, metainfo=dict(classes=classes) if classes else {})
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        **dataset,
        ann_file="annotations/instances_train2017.json",
        data_prefix=dict(img="train2017/"),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=_base_.train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        _delete_=True,
        **dataset,
        ann_file="annotations/instances_val2017.json",
        data_prefix=dict(img="val2017/"),
        test_mode=True,
        pipeline=_base_.test_pipeline,
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(
    _delete_=True, type="CocoMetric", metric="bbox", metric_items=["mAP", "mAP_50", "mAP_75", "AR@100"]
)
test_evaluator = val_evaluator
