"""SCFS, small: DINO on C5 and feature search on C4, with two global and four local crops.

    python tools/train.py configs/small/scfs_r18.py --data-root photos/

Not a published recipe; measured in docs/methods.md.
"""

_base_ = "../_base_/small_r18.py"

views = [
    dict(_base_.views[0], scale=(0.25, 1.0)),
    dict(_base_.views[0], size=64, scale=(0.05, 0.25), repeat=4),
]
groups = ((0, 1), (2, 3, 4, 5))
model = dict(
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.99), timing="after_step"),
    objectives=[
        dict(type="DINO", level=1, views=groups, prototypes=4096, hidden=(1024, 1024), bottleneck=256),
        dict(type="SCFS", levels=(0,), views=groups, width=128, hidden=1024, dim=256),
    ],
)
optim_wrapper = dict(clip_grad=dict(type="per_parameter", max_norm=3.0))
