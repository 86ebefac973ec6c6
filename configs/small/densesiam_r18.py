"""DenseSiam, small: SimSiam on C5, pixel and region terms on C4.

    python tools/train.py configs/small/densesiam_r18.py --data-root photos/

Not a published recipe; measured in docs/methods.md.
"""

_base_ = "../_base_/small_r18.py"

model = dict(
    online=dict(backbone=dict(zero_gamma=True)),
    target=dict(kind="stop_gradient"),
    objectives=[
        dict(type="SimSiam", level=1, hidden=1024, dim=1024, bottleneck=256),
        dict(
            type="DenseSiam",
            level=0,
            hidden=512,
            dim=128,
            region_weight=dict(type="switch", before=0.0, after=0.1, at_epoch=3),
        ),
    ],
)
