"""RetinaNet, ResNet-18, small, for objects of any kind: all categories of a COCO file are one class, `object`.

    python tools/train.py configs/transfer/coco/retinanet_r18_256_object.py --data-root DIR --init r18.pth

As `retinanet_r18_256_coco.py`, whose layout DIR has; CLASSES is not looked at. A measure of pretraining where photos
are few and categories many. The annotation file stays as it is, and both training and metric see one class.
"""

_base_ = "retinanet_r18_256_coco.py"

model = dict(bbox_head=dict(num_classes=1))
one_class = dict(type="densessl.OneClassCocoDataset", metainfo=dict(classes=["object"]))
train_dataloader = dict(dataset=one_class)
val_dataloader = dict(dataset=one_class)
test_dataloader = dict(dataset=one_class)
