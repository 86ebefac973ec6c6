"""RegionCL-M, ResNet-50, 200 epochs of ImageNet (Xu et al., ECCV 2022, arXiv 2111.12309).

    python tools/train.py configs/regioncl_m_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/regioncl_m_r50.py --launcher pytorch --data-root imagenet/train/

Paper: 69.4 linear top-1; COCO Mask R-CNN C4 1x 39.8 box / 34.8 mask AP, FPN 1x 40.1 / 36.3; 31 hours on 8 A100 in fp32.
Its log has loss_instance / loss_region 10.6 / 10.6 after 1000 steps, 7.9 / 8.3 in epoch 8, 6.7 / 7.2 at the end.
Recipe: the released code, whose rectangles are often not aligned with the grid of cells: `placement="aligned"` aligns
them. Batch norm is synchronised; the code shuffles the keys over the GPUs instead; every GPU pairs its own images. For
the 10 x 10 cells of C4 in views of 160 pixels: out_indices=(2, 3), level=0, cell=16.
"""

_base_ = "mocov2_r50.py"

model = dict(
    online=dict(backbone=dict(init_mode="fan_in")),
    objectives=[
        dict(
            type="RegionCL",
            hidden=2048,
            dim=128,
            length=65536,
            temperature=0.2,
            lower=3,
            upper=6,
            placement="official",
            pairing="reverse",
        )
    ],
)

# 8 GPUs x 128 images = 1024 images a step; 1.28 M images give 1251 steps an epoch.
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=0.15))  # more than MoCo v2's 0.03 per 256
default_hooks = dict(lr=dict(reference_batch=1024))
