"""SIM with a global term, as in the first versions of the preprint.

    python tools/train.py configs/ablation/sim/global_term.py --data-root photos/

Differs from `sim_vit_b.py` in a second loss of the same form on the mean over the cells of an image. Reconstructed: no
released code has it, and its form and weight there are not confirmed.
"""

_base_ = "../../sim_vit_b.py"

model = dict(objectives=[dict(_base_.model.objectives[0], global_weight=1.0)])
