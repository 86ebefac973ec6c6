"""PixPro, ResNet-50, 400 epochs of ImageNet: `pixpro_r50.py`, trained longer.

    torchrun --nproc_per_node 8 tools/train.py configs/pixpro_r50_400e.py --launcher pytorch --data-root imagenet/train/

Paper: VOC Faster R-CNN C4 60.2 AP, COCO Mask R-CNN C4 1x 40.5 box / 35.3 mask AP. Training time is not published.
"""

_base_ = "pixpro_r50.py"

train_cfg = dict(max_epochs=400)  # 8 GPUs x 128 images = 1024; 500,400 steps
