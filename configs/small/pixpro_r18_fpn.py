"""PixPro through a pyramid (20x20, 10x10 and 5x5 cells) and the shared convolutions of a head, small.

    python tools/train.py configs/small/pixpro_r18_fpn.py --data-root photos/

Backbone, neck and head are those of `transfer/voc/retinanet_r18_256_voc.py`, which loads all three. Not a published
recipe; `pixpro_r50_fpn.py` lists what is reconstructed.
"""

_base_ = "../_base_/small_r18.py"

model = dict(
    online=dict(
        backbone=dict(out_indices=(0, 1, 2, 3), zero_gamma=True),
        neck=dict(type="FPN", out_channels=64, start_level=1, norm_cfg=dict(type="SyncBN")),
        head=dict(type="DenseHeadConvs", feat_channels=64, stacked_convs=2, norm_cfg=dict(type="GN", num_groups=16)),
    ),
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.99)),
    objectives=[
        dict(type="PixPro", name=f"{tower}{level}", level=f"{tower}.{level}", weight=1 / 6, hidden=512, dim=128)
        for tower in ("cls", "reg")
        for level in range(3)
    ],
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="LARS", lr=1.0, momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(exclude=("1d",)),
)
