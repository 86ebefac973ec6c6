"""SIM's masked view predicts the pixels of the other view.

    python tools/train.py configs/ablation/sim/other_view_pixels.py --data-root photos/

Differs from `sim_vit_b.py` in the target: each patch's normalised pixels, including that view's blur and
solarisation, instead of features. Together with `same_view_pixels.py` and `same_view_features.py` it covers all four
combinations of view and target. Not a published
run.
"""

_base_ = "../../sim_vit_b.py"

model = dict(
    target=dict(_delete_=True, kind="stop_gradient"),  # pixels need no second branch
    objectives=[dict(_base_.model.objectives[0], predict="pixels")],
)
