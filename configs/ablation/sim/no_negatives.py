"""SIM without the second term of its loss.

    python tools/train.py configs/ablation/sim/no_negatives.py --data-root photos/

Differs from `sim_vit_b.py` in the weight of the term that separates predictions from the targets of other cells and
images: 0 instead of 0.02. The released code has it as `--neg_weight`; the paper's exact setting is not confirmed.
"""

_base_ = "../../sim_vit_b.py"

model = dict(objectives=[dict(_base_.model.objectives[0], negative_weight=0.0)])
