"""UP-DETR on Conditional DETR, ResNet-50, 60 epochs of ImageNet: a reconstruction (Dai et al., CVPR 2021, arXiv
2011.09094).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/train.py configs/updetr_conditional_detr_r50.py --data-root photos/ --init backbone/backbone.pth

Whatever `--init` names is the frozen backbone, of image and patches: a checkpoint or an export of any run here,
torchvision's weights, SwAV's released file (which the paper starts from).

Re-runs of Siamese DETR's authors, with 100 queries: COCO 39.4 AP (without pretraining 37.7), VOC 56.9 (49.9).
Reconstructed: UP-DETR's code has DETR only; where the port of Siamese DETR's authors is known, this follows it. Losses
and matching costs of the boxes are Conditional DETR's own, all else is UP-DETR's recipe for DETR. Patches are added to
the queries' positions, so that reference points depend on them too. 300 queries in ten groups, as MMDetection's config
has.
"""

_base_ = "_base_/updetr.py"

model = dict(detector="mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py")
