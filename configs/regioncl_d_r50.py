"""RegionCL-D, RegionCL on DenseCL, ResNet-50, 200 epochs of ImageNet (Xu et al., ECCV 2022, arXiv 2111.12309).

    python tools/train.py configs/regioncl_d_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/regioncl_d_r50.py --launcher pytorch --data-root imagenet/train/

Paper: 68.5 linear top-1; COCO Mask R-CNN C4 1x 40.3 box / 35.2 mask AP, FPN 1x 40.4 / 36.7. Training time is not
published.
Recipe: the authors released none; this is that of the third-party port CoinCheung/DenseCL, which reaches 67.5 linear
top-1 and VOC Faster R-CNN C4 58.7 AP: weights of the terms, random partners, rectangles on the grid, MoCo v2's
optimiser (the port trains in fp16). Its region term uses the instance head and queue only.
"""

_base_ = "mocov2_r50.py"

model = dict(
    online=dict(backbone=dict(init_mode="fan_in")),
    # 0.5 (instance + dense) + region.
    objectives=[
        dict(
            type="RegionCL",
            instance_weight=0.5,
            region_weight=1.0,
            hidden=2048,
            dim=128,
            length=65536,
            temperature=0.2,
            lower=3,
            upper=6,
            placement="cells",
            pairing="permutation",
        ),
        dict(type="DenseCL", weight=0.5, hidden=2048, dim=128, length=65536, temperature=0.2),
    ],
)
