"""UP-DETR on DAB-DETR, ResNet-50, 60 epochs of ImageNet: a reconstruction (Dai et al., CVPR 2021, arXiv 2011.09094).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/train.py configs/updetr_dab_detr_r50.py --data-root photos/ --init backbone/backbone.pth

`--init` names the frozen backbone, for images and patches: a checkpoint or export of densessl, torchvision's weights,
or SwAV's released file (which the paper starts from).

Reconstructed: UP-DETR's code has DETR only. Losses and matching costs of the boxes are DAB-DETR's own; everything else
is UP-DETR's recipe for DETR. Query positions are boxes, so patch features are added to the queries' content. 300
queries in ten groups.
"""

_base_ = "_base_/updetr.py"

model = dict(detector="mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py")
