"""RegionCL-S, RegionCL on SimSiam, ResNet-50, 200 epochs of ImageNet (Xu et al., ECCV 2022, arXiv 2111.12309).

    python tools/train.py configs/regioncl_s_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/regioncl_s_r50.py --launcher pytorch --data-root imagenet/train/

Paper: 71.3 linear top-1; COCO Mask R-CNN C4 1x 38.7 box / 33.7 mask AP, FPN 1x 38.8 / 35.2. Training time is not
published.
Recipe: a reconstruction, because the authors released results only. Confirmed: SimSiam's part and, from RegionCL-M,
rectangle and pairing. Reconstructed: the region loss (predictor on both parts, the other view's vector as target, both
directions, weight 1) and the schedule, SimSiam's over 200 epochs.
"""

_base_ = "simsiam_r50.py"

model = dict(
    objectives=[
        dict(
            type="RegionCLSimSiam",
            hidden=2048,
            dim=2048,
            bottleneck=512,
            lower=3,
            upper=6,
            placement="official",
            pairing="reverse",
        )
    ]
)

# 8 GPUs x 64 images = 512 images a step, four forwards each; 1.28 M images give 2502 steps an epoch.
train_cfg = dict(max_epochs=200)
optim_wrapper = dict(paramwise_cfg=dict(constant_lr=("objectives.regionclsimsiam.predictor",)))
