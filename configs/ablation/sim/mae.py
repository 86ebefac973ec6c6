"""MAE's task on SIM's networks: the first of the steps MAE, `same_view_pixels.py`, `same_view_features.py`, SIM.

    python tools/train.py configs/ablation/sim/mae.py --data-root photos/

Compare with `same_view_pixels.py`. From MAE (He et al., CVPR 2022): crops and flips only; 75 % of the patches masked at
random; their normalised pixels are predicted and scored. From `sim_vit_b.py`, and not as in MAE: networks (frozen patch
embedding, no final norm, decoder over the visible tokens and a query for every cell), batch, schedule. Not a published
run.
"""

_base_ = "../../sim_vit_b.py"

# Masks 147 of 14x14 patches.
views = [
    dict(
        size=224,
        scale=(0.2, 1.0),
        hflip=0.5,
        interpolation="bicubic",
        mask=dict(type="random", patch_size=16, hidden=147),
    )
]
model = dict(
    target=dict(_delete_=True, kind="stop_gradient"),  # pixels need no second branch
    objectives=[dict(_base_.model.objectives[0], views=(0, 0), predict="pixels", score="masked")],
)
