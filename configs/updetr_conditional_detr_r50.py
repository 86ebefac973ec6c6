"""UP-DETR on Conditional DETR, ResNet-50, 60 epochs of ImageNet: a reconstruction (Dai et al., CVPR 2021, arXiv
2011.09094).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/train.py configs/updetr_conditional_detr_r50.py --data-root photos/ --init backbone/backbone.pth

`--init` names the frozen backbone, for images and patches: a checkpoint or export of densessl, torchvision's weights,
or SwAV's released file (which the paper starts from).

Re-runs by Siamese DETR's authors, with 100 queries: COCO 39.4 AP (without pretraining 37.7), VOC 56.9 (49.9).
Reconstructed: UP-DETR's code has DETR only; this follows the port by Siamese DETR's authors where it is known. Losses
and matching costs of the boxes are Conditional DETR's own; everything else is UP-DETR's recipe for DETR. Patches are
added to the queries' positions, so that reference points depend on them too. 300 queries in ten groups, as in
MMDetection's config.
"""

_base_ = "_base_/updetr.py"

model = dict(detector="mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py")
