"""DenseCL, ResNet-50, 800 epochs of COCO train2017 (Wang et al., CVPR 2021, arXiv 2011.09157).

    python tools/train.py configs/densecl_r50_coco.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/densecl_r50_coco.py --launcher pytorch \
        --data-root coco/train2017/

Paper: VOC Faster R-CNN C4 56.7 AP (MoCo v2 54.7), VOC FCN 67.5 mIoU (64.5); one day on 8 V100. 1600 epochs: 57.2, 68.0.
Expect the losses to rise in the first epochs, while the queues fill with real keys.
"""

_base_ = "densecl_r50.py"

# 8 GPUs x 32 images = 256 images a step; 118,287 images give 462 steps an epoch.
train_dataloader = dict(dataset=dict(source="data/coco/train2017"))
train_cfg = dict(max_epochs=800)
optim_wrapper = dict(optimizer=dict(lr=0.3))
