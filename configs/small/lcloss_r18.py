"""LC-loss, small: BYOL on C5 and local contrast on C4.

    python tools/train.py configs/small/lcloss_r18.py --data-root photos/

Not a published recipe; measured in docs/methods.md.
"""

_base_ = "../_base_/small_r18.py"

model = dict(
    online=dict(backbone=dict(zero_gamma=True)),
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.97)),
    objectives=[
        dict(type="BYOL", level=1, hidden=1024, dim=256),
        dict(type="LCLoss", level=0, weight=0.5, hidden=512, dim=256),
    ],
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="LARS", lr=0.5, momentum=0.9, weight_decay=1e-6, eps=0.0),
    paramwise_cfg=dict(exclude=("1d",)),
)
