"""UP-DETR on Deformable DETR, ResNet-50, 60 epochs of ImageNet: a reconstruction (Dai et al., CVPR 2021, arXiv
2011.09094).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/train.py configs/updetr_deformable_detr_r50.py --data-root photos/ --init backbone/backbone.pth

`--init` names the frozen backbone, for images and patches: a checkpoint or export of densessl, torchvision's weights,
or SwAV's released file (which the paper starts from).

Re-runs by Siamese DETR's authors: COCO 45.3 AP (without pretraining 45.5), VOC 56.4 (56.1).
Reconstructed: UP-DETR's code has DETR only; this follows the port by Siamese DETR's authors where it is known. Losses
and matching costs of the boxes are Deformable DETR's own; everything else is UP-DETR's recipe for DETR. The feature of
a patch is the concatenation of the means of its C3, C4 and C5 (3584 channels), added to the queries' content;
classification keeps the detector's focal loss. 300 queries in ten groups.
"""

_base_ = "_base_/updetr.py"

model = dict(detector="mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py")
optim_wrapper = dict(
    optimizer=dict(lr=2e-4), paramwise_cfg=dict(lr_mult={"*.sampling_offsets": 0.1, "*.reference_points_fc": 0.1})
)
