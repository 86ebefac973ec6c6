"""SIM with cells masked at random.

    python tools/train.py configs/ablation/sim/random_mask.py --data-root photos/

Differs from `sim_vit_b.py` in the mask: the same number of cells, one by one instead of in blocks. The paper's exact
setting is not confirmed.
"""

_base_ = "../../sim_vit_b.py"

views = [
    dict(_base_.views[0], mask=dict(type="random", patch_size=16, hidden=118)),
    _base_.views[1],
]
