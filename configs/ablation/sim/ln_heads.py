"""SIM with layer norms in projector and decoder.

    python tools/train.py configs/ablation/sim/ln_heads.py --data-root photos/

Differs from `sim_vit_b.py`, which has batch norms over the tokens of all images there. The released code has both, as
`--use_proj_ln` and `--use_pred_ln`; the paper's exact setting is not confirmed.
"""

_base_ = "../../sim_vit_b.py"

model = dict(
    objectives=[
        dict(
            _base_.model.objectives[0],
            projector_norm=dict(type="LN", eps=1e-6),
            decoder_norm=dict(type="LN", eps=1e-6),
        )
    ]
)
