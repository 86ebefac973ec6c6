"""SIM without a mask.

    python tools/train.py configs/ablation/sim/no_mask.py --data-root photos/

Differs from `sim_vit_b.py`: the online branch sees its whole view, which makes its pass two and a half times as long.
The paper's exact setting is not confirmed.
"""

_base_ = "../../sim_vit_b.py"

views = [dict(_base_.views[0], mask=None), _base_.views[1]]
model = dict(objectives=[dict(_base_.model.objectives[0], masked=False)])
