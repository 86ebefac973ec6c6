"""SIM's masked view predicts its own features, the last step before SIM.

    python tools/train.py configs/ablation/sim/same_view_features.py --data-root photos/

Differs from `sim_vit_b.py` in the predicted view: the whole first view, as the target's encoder sees it, with the same
crop and colours. Relative positions are then those of the grid. The paper compares both; its exact setting is not
confirmed.
"""

_base_ = "../../sim_vit_b.py"

views = [_base_.views[0]]
model = dict(objectives=[dict(_base_.model.objectives[0], views=(0, 0))])
