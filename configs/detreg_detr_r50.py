"""DETReg, DETR with ResNet-50, 60 epochs of ImageNet (Bar et al., CVPR 2022, arXiv 2106.04550).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/regions.py build photos/ photo_regions --generator diverse --max-side 128 --per-image 0 \
        --generator-options scales=150,300,450 min_size=100
    python tools/train.py configs/detreg_detr_r50.py --data-root photos/ --regions photo_regions \
        --init backbone/backbone.pth

`--init` names the frozen backbone, which is also the teacher: a checkpoint or export of densessl, torchvision's
weights, or SwAV's released file (which the paper starts from).

Re-runs by Siamese DETR's authors: COCO 41.9 AP (without pretraining 39.7), VOC 57.0 (47.8).
Recipe: the released code, except that DETR normalises after each residual, as MMDetection's DETR does, not before.
Weights of the two kinds are not interchangeable. 100 queries.
"""

_base_ = "_base_/detreg.py"

model = dict(detector="mmdet::detr/detr_r50_8xb2-150e_coco.py")
train_cfg = dict(by_epoch=True, max_epochs=60)
