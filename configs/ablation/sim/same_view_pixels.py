"""SIM's masked view predicts its own pixels, between `mae.py` and `same_view_features.py`.

    python tools/train.py configs/ablation/sim/same_view_pixels.py --data-root photos/

Differs from `mae.py` in SIM's photometric operations, crops and mask, and because all cells count, as in SIM; from
`same_view_features.py` in the target: each patch's normalised pixels instead of features. Not a published run.
"""

_base_ = "../../sim_vit_b.py"

views = [_base_.views[0]]
model = dict(
    target=dict(_delete_=True, kind="stop_gradient"),  # pixels need no second branch
    objectives=[dict(_base_.model.objectives[0], views=(0, 0), predict="pixels")],
)
