"""CCOP, ResNet-50 FPN, 800 epochs of COCO train2017 (Yang, Huang & Crowley, arXiv 2111.13651).

    python tools/regions.py build data/coco/train2017 data/coco_regions
    python tools/train.py configs/ccop_r50_coco.py --data-root photos/ --regions photo_regions
    torchrun --nproc_per_node 8 tools/train.py configs/ccop_r50_coco.py --launcher pytorch \
        --data-root data/coco/train2017

Three terms of weight 1: MoCo v2 on the last stage, contrast of regions with the hardest of their jittered copies, and
discrimination of the regions of an image. It pretrains backbone and pyramid. The pyramid's convolutions have norms, so
a detector needs `neck.norm_cfg` to load it. The paper evaluates with COCO Mask R-CNN FPN 1x (4conv) and reports gains
over MoCo v2; this config claims no numbers.
Recipe: the released code. What differs: batch norm is synchronised; the code shuffles the keys over the GPUs instead.
The code swaps the two views at random, which changes nothing because both are drawn alike. Its queue drops regions
beyond its end (`truncate=True`); ours wraps around. Its cosine counts from the first epoch, ours from the end of the
warm-up; they differ by at most 1 % of the peak. As in the code, regions larger than the last of `sizes` would be read
from the finest map; in square views of one size there are none.
Regions: the code uses OpenCV's fast selective search, thinned at random once. Ours are thinned anew in every epoch from
all regions in the store; a store built with `--select ccop` holds regions thinned once.
"""

_base_ = "_base_/runtime.py"

views = [
    dict(
        size=224,
        scale=(0.1, 1.0),
        hflip=0.5,
        repeat=2,
        # Draws up to ten crops, until one shows more than 0.6 of a region.
        regions=dict(kept=0.6, at_least=1, tries=10),
        photometric=[
            dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8),
            dict(type="Grayscale", p=0.2),
            # The code's kernel has 7 x 7 pixels, which truncates a sigma of 2 at 1.5 deviations.
            dict(type="GaussianBlur", sigma=(0.1, 2.0), radius=3, p=0.5),
        ],
    )
]

selected = [
    dict(type="AspectRange", low=1 / 3, high=3),
    dict(type="MinSide", pixels=20),
    dict(type="Thin", iou=0.5),
    dict(type="TopK", k=50),
]
drawn = dict(jitter=40)  # 10 copies of each region, 4 numbers each
regions = dict(type="RegionStore", path="data/coco_regions", select=selected, uniforms=drawn)

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=50, out_indices=(0, 1, 2, 3), norm_cfg=dict(type="SyncBN")),
        neck=dict(type="FPN", out_channels=256, norm_cfg=dict(type="SyncBN")),
    ),
    target=dict(kind="ema", momentum=0.999),
    objectives=[
        dict(type="MoCo", hidden=2048, dim=128, dropout=0.1, init="normal", length=65536, temperature=0.2),
        dict(
            type="CCOP",
            levels=("neck.0", "neck.1", "neck.2", "neck.3"),
            sizes=(48, 96, 192, 224),
            output=7,
            hidden=2048,
            dim=128,
            dropout=0.1,
            init="normal",
            length=65536,
            temperature=0.2,
            # Linear over the run, one step ahead, as the code counts.
            iou_threshold=dict(type="linear", start=0.8, end=0.4, lead=1),
            jitter_xy=dict(type="linear", start=0.15, end=0.6, lead=1),
            jitter_wh=dict(type="linear", start=0.35, end=1.4, lead=1),
            margin=0.4,
        ),
    ],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 8 GPUs x 32 images = 256 images a step; 118,287 images give 462 steps an epoch.
train_dataloader = dict(batch_size=32, dataset=dict(type="UnlabelledImages", source="data/coco/train2017"))
train_cfg = dict(by_epoch=True, max_epochs=800)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    # Weight decay on all parameters, including biases and norms.
    optimizer=dict(type="SGD", lr=0.3, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=()),
)
# Ten epochs of warm-up, then a cosine to 0, updated once per epoch.
default_hooks = dict(
    lr=dict(
        schedule=dict(type="warmup_cosine", warmup_epochs=10, start_factor=1e-4, by_epoch=True),
        reference_batch=256,
    )
)

demo = {
    "regions": dict(
        _delete_=True,
        type="GeneratedRegions",
        generator=dict(type="FastSelectiveSearch"),
        select=selected,
        uniforms=drawn,
    )
}
