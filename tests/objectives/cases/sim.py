from tests.objectives.cases import AFTER, EMA, STOP, Case
from tests.objectives.toy import VIT

SIM = dict(type="SIM", dim=16, heads=2, mlp_ratio=2, projector_depth=1, decoder_depth=1)
LN = dict(type="LN")
PIXELS = dict(SIM, projector_depth=0, views=(0, 0), predict="pixels", score="masked")
COMMON = dict(masks={0: (16, 6)}, backbone=VIT, tokens=True)
CASES = {
    "sim": Case([SIM], (EMA, AFTER, STOP, dict(kind="frozen")), collapsed=("sim.between_images", 1.0), **COMMON),
    "sim-ln": Case([dict(SIM, projector_norm=LN, decoder_norm=LN, norm_predictions=True)], **COMMON),
    "sim-mae": Case([PIXELS], (STOP, EMA), **COMMON),
    "sim-same-view-features": Case([dict(SIM, views=(0, 0), layer_scale=0.1)], (EMA, STOP), **COMMON),
    "sim-global": Case([dict(SIM, masked=False, global_weight=0.5, with_cp=True)], **COMMON),
    "sim-sizes": Case([SIM], sizes=(64, 96), **COMMON),
    "sim+pixpro": Case([SIM, dict(type="PixPro", hidden=12, dim=8)], (EMA, STOP), **COMMON),
}
