"""DETReg, Deformable DETR with ResNet-50, 5 epochs of ImageNet (Bar et al., CVPR 2022, arXiv 2106.04550).

    python tools/train.py configs/pixpro_r50.py --data-root photos/ --work-dir backbone
    python tools/regions.py build photos/ photo_regions --generator diverse --max-side 128 --per-image 0 \
        --generator-options scales=150,300,450 min_size=100
    python tools/train.py configs/detreg_deformable_detr_r50.py --data-root photos/ --regions photo_regions \
        --init backbone/backbone.pth

`--init` names the frozen backbone, which is also the teacher: a checkpoint or export of densessl, torchvision's
weights, or SwAV's released file (which the paper starts from).

Paper: COCO with 1 % of its labels 14.6 AP (SwAV backbone alone 11.8, supervised 11.3), with 10 % 29.1 (27.8, 26.3);
with all labels 0.3 more than SwAV, and 2.5 more on VOC. About 1.5 days on 8 V100.
Recipe: the released code, with one class instead of 91, of which the code uses only one. Regions are made once, at 128
pixels, and ranked anew in every epoch; the released code makes them with OpenCV's fast mode in every epoch.
"""

_base_ = "_base_/detreg.py"

# In the official code, the projections of the backbone's maps have biases.
model = dict(detector="mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", options={"neck.bias": True})
train_cfg = dict(by_epoch=True, max_epochs=5)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4), paramwise_cfg=dict(lr_mult={"*.sampling_offsets": 0.1, "*.reference_points_fc": 0.1})
)
