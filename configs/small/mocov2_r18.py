"""MoCo v2 alone, small: the baseline for the dense objectives that are combined with it.

    python tools/train.py configs/small/mocov2_r18.py --data-root photos/

Not a published recipe; measured in docs/methods.md.
"""

_base_ = "../_base_/small_r18.py"

model = dict(
    target=dict(kind="ema", momentum=0.99),
    objectives=[dict(type="MoCo", level=1, hidden=512, dim=128, length=4096, temperature=0.2)],
)
