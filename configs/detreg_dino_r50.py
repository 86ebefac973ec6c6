"""DETReg on DINO, ResNet-50, 60 epochs of ImageNet: a reconstruction (Bar et al., CVPR 2022, arXiv 2106.04550).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/regions.py build photos/ photo_regions --generator diverse --max-side 128 --per-image 0 \
        --generator-options scales=150,300,450 min_size=100
    python tools/train.py configs/detreg_dino_r50.py --data-root photos/ --regions photo_regions \
        --init backbone/backbone.pth

`--init` names the frozen backbone, which is also the teacher: a checkpoint or export of densessl, torchvision's
weights, or SwAV's released file (which the paper starts from).

Reconstructed: DETReg's code has DETR and Deformable DETR only. Losses and matching costs of the boxes are DINO's own;
everything else is DETReg's recipe for DETR. Denoising stays on, with one class: noise moves boxes, not labels.
"""

_base_ = "_base_/detreg.py"

model = dict(detector="mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py")
train_cfg = dict(by_epoch=True, max_epochs=60)
