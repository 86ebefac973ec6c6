"""DenseCL, ResNet-50, 200 epochs of ImageNet (Wang et al., CVPR 2021, arXiv 2011.09157).

    python tools/train.py configs/densecl_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/densecl_r50.py --launcher pytorch --data-root imagenet/train/

Paper: VOC Faster R-CNN C4 58.7 AP (MoCo v2 57.0), COCO Mask R-CNN FPN 1x 40.3 box / 36.4 mask AP, 63.5 linear top-1;
2.3 days on 8 V100.
Recipe: the released code. Batch norm is synchronised; the code shuffles the keys over the GPUs instead. To match cells
by position instead of features, set `correspondence=dict(type="OverlapGrid", size=7)` of `DenseCL`.
"""

_base_ = "mocov2_r50.py"

model = dict(
    online=dict(backbone=dict(init_mode="fan_in")),
    # (1 - lambda) instance + lambda dense, lambda = 0.5.
    objectives=[
        dict(type="MoCo", weight=0.5, hidden=2048, dim=128, length=65536, temperature=0.2),
        dict(
            type="DenseCL",
            weight=0.5,
            hidden=2048,
            dim=128,
            length=65536,
            temperature=0.2,
            correspondence=dict(type="FeatureArgmax"),
        ),
    ],
)
