"""DenseSiam, ResNet-50, 200 epochs of ImageNet (Zhang et al., ECCV 2022, arXiv 2203.11075). A reconstruction.

    python tools/train.py configs/densesiam_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/densesiam_r50.py --launcher pytorch --data-root imagenet/train/

Paper: COCO Mask R-CNN FPN 1x 40.8 box / 36.8 mask AP, VOC07 82.9 AP50, Cityscapes 77.0 mIoU. Training time is not
published.
Known: two crops pass one network, without moving average or negative pixels; convolutional projector and predictor,
with stop-gradient on the other side; predictions sampled on a grid over the overlap of the crops; contrast between
regions of the overlap. Only the code of the segmentation variant was released (`densesiam_r18_coco27.py`).
Reconstructed: SimSiam's unchanged recipe, including its image-level loss, for 200 epochs; 7x7 points; heads of three
and two 1x1 convolutions with 512 channels, and 128 output channels, which also serve as regions; the region term as in
the segmentation code, summed over the sampled points of C5, at temperature 0.1, weight 0.1 over the last fifth of
training.
"""

_base_ = "simsiam_r50.py"

model = dict(
    objectives=[
        dict(type="SimSiam", hidden=2048, dim=2048, bottleneck=512),
        dict(
            type="DenseSiam",
            hidden=512,
            dim=128,
            correspondence=dict(type="OverlapGrid", size=7),
            region_weight=dict(type="switch", before=0.0, after=0.1, at_epoch=160),
            temperature=0.1,
        ),
    ],
)
# 8 GPUs x 64 images = 512 images a step; 1.28 M images give 2502 steps an epoch.
train_cfg = dict(max_epochs=200)
optim_wrapper = dict(
    paramwise_cfg=dict(
        constant_lr=(
            "objectives.simsiam.predictor",
            "objectives.densesiam.predictor",
            "objectives.densesiam.region.predictor",
        )
    ),
)
