"""UP-DETR on DAB-DETR, ResNet-50, 60 epochs of ImageNet: a reconstruction (Dai et al., CVPR 2021, arXiv 2011.09094).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/train.py configs/updetr_dab_detr_r50.py --data-root photos/ --init backbone/backbone.pth

Whatever `--init` names is the frozen backbone, of image and patches: a checkpoint or an export of any run here,
torchvision's weights, SwAV's released file (which the paper starts from).

Reconstructed: UP-DETR's code has DETR only. Losses and matching costs of the boxes are DAB-DETR's own, all else is
UP-DETR's recipe for DETR. Query positions are boxes, so patch features are added to the queries' content. 300 queries in ten
groups.
"""

_base_ = "_base_/updetr.py"

model = dict(detector="mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py")
