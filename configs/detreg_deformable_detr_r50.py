"""DETReg, Deformable DETR with ResNet-50, 5 epochs of ImageNet (Bar et al., CVPR 2022, arXiv 2106.04550).

    python tools/regions.py build imagenet/train/ imagenet_regions --generator diverse
    python tools/train.py configs/detreg_deformable_detr_r50.py --data-root imagenet/train/ --regions imagenet_regions \
        --init swav_r50.pth
"""

_base_ = "_base_/detreg.py"

model = dict(detector="mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", options={"neck.bias": True})
train_cfg = dict(by_epoch=True, max_epochs=5)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
custom_hooks = _base_.custom_hooks
custom_hooks[1].update(schedule=dict(type="constant", value=2e-4))
