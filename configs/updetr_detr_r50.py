"""UP-DETR, DETR with ResNet-50, 60 epochs of ImageNet (Dai et al., CVPR 2021, arXiv 2011.09094).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/train.py configs/updetr_detr_r50.py --data-root photos/ --init backbone/backbone.pth

`--init` names the frozen backbone, for images and patches: a checkpoint or export of densessl, torchvision's weights,
or SwAV's released file (which the paper starts from).

Paper: COCO 42.8 AP after 300 epochs, the released code 43.1 (SwAV backbone alone 42.1); VOC 57.2. About 5 days on 8
V100.
Recipe: the released code, except that DETR normalises after each residual, as MMDetection's DETR does, not before.
Weights of the two kinds are not interchangeable. 100 queries in ten groups.
"""

_base_ = "_base_/updetr.py"

model = dict(detector="mmdet::detr/detr_r50_8xb2-150e_coco.py")
