"""DenseCL, small: MoCo v2 on C5 and dense contrast on C4, half and half.

    python tools/train.py configs/small/densecl_r18.py --data-root photos/

Not a published recipe; measured in docs/methods.md.
"""

_base_ = "../_base_/small_r18.py"

model = dict(
    target=dict(kind="ema", momentum=0.99),
    objectives=[
        dict(type="MoCo", level=1, weight=0.5, hidden=512, dim=128, length=4096, temperature=0.2),
        dict(type="DenseCL", level=0, weight=0.5, hidden=512, dim=128, length=4096, temperature=0.2),
    ],
)
