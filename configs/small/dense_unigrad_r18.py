"""UniGrad, small: its original form on C5, SIM's dense form on C4.

    python tools/train.py configs/small/dense_unigrad_r18.py --data-root photos/

Not a published recipe. The dense term's `negative_weight` keeps the balance that SIM's 0.02 has at 768 channels.
"""

_base_ = "../_base_/small_r18.py"

model = dict(
    online=dict(backbone=dict(zero_gamma=True)),
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.97)),
    objectives=[
        dict(type="UniGrad", level=1, hidden=1024, dim=1024),
        dict(type="DenseUniGrad", level=0, hidden=512, dim=256, negative_weight=0.06),
    ],
)
