"""DETReg on DAB-DETR, ResNet-50, 60 epochs of ImageNet: a reconstruction (Bar et al., CVPR 2022, arXiv 2106.04550).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/regions.py build photos/ photo_regions --generator diverse --max-side 128 --per-image 0 \
        --generator-options scales=150,300,450 min_size=100
    python tools/train.py configs/detreg_dab_detr_r50.py --data-root photos/ --regions photo_regions \
        --init backbone/backbone.pth

`--init` names the frozen backbone, which is also the teacher: a checkpoint or export of densessl, torchvision's
weights, or SwAV's released file (which the paper starts from).

Reconstructed: DETReg's code has DETR and Deformable DETR only. Losses and matching costs of the boxes are DAB-DETR's
own; everything else is DETReg's recipe for DETR. Queries are boxes and are learnt, as in fine-tuning.
"""

_base_ = "_base_/detreg.py"

model = dict(detector="mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py")
train_cfg = dict(by_epoch=True, max_epochs=60)
