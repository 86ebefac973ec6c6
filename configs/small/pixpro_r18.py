"""PixPro, small: pixel propagation on C4 alone; C5 is not trained.

    python tools/train.py configs/small/pixpro_r18.py --data-root photos/

Not a published recipe; measured in docs/methods.md.
"""

_base_ = "../_base_/small_r18.py"

model = dict(
    online=dict(backbone=dict(out_indices=(2,), zero_gamma=True)),
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.99)),
    objectives=[dict(type="PixPro", hidden=1024, dim=128)],
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="LARS", lr=1.0, momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(exclude=("1d",)),
)
