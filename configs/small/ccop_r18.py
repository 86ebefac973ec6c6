"""CCOP, small: MoCo v2 on C5, and ten regions per image in a pyramid of 64 channels.

    python tools/regions.py build photos/ photo_regions
    python tools/train.py configs/small/ccop_r18.py --data-root photos/ --regions photo_regions

Not a published recipe.
"""

_base_ = "../_base_/small_r18.py"

views = [dict(_base_.views[0], regions=dict(kept=0.6, at_least=1, tries=10))]
selected = [
    dict(type="AspectRange", low=1 / 3, high=3),
    dict(type="MinSide", pixels=20),
    dict(type="Thin", iou=0.5),
    dict(type="TopK", k=10),
]
drawn = dict(jitter=16)  # 4 copies of each region, 4 numbers each
regions = dict(type="RegionStore", path="photo_regions", select=selected, uniforms=drawn)

model = dict(
    online=dict(
        backbone=dict(out_indices=(0, 1, 2, 3)), neck=dict(type="FPN", out_channels=64, norm_cfg=dict(type="SyncBN"))
    ),
    target=dict(kind="ema", momentum=0.99),
    objectives=[
        dict(type="MoCo", level=3, hidden=512, dim=128, length=4096, temperature=0.2),
        # Sizes are pixels of views of 224 pixels: at 160 pixels they are 34, 69, 137 and 160.
        dict(type="CCOP", sizes=(48, 96, 192, 224), output=4, hidden=512, dropout=0.0, init="kaiming", length=8192),
    ],
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
