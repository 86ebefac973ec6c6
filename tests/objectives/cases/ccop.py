from tests.objectives.cases import STOP, Case

EMA = dict(kind="ema", momentum=0.9)
# Few numbers; no dropout, which two ranks draw otherwise than one. Sizes are those of views of 64 pixels.
SMALL = dict(hidden=12, dim=8, dropout=0.0, init="kaiming")
REGIONS = dict(type="CCOP", output=3, length=30, reference=64, min_area=20, chunk=5, **SMALL)
CASES = {
    "ccop": Case(
        [dict(type="MoCo", length=12, **SMALL), dict(REGIONS, levels=("neck.0", "neck.1"), sizes=(26, 64))],
        (EMA, STOP),
        regions=dict(jitter=8),
        neck=dict(type="FPN", out_channels=10),
    ),
    "ccop-one-level": Case(
        [dict(REGIONS, levels=(-1,), sizes=(64,), iou_threshold=0.5, jitter_xy=0.3, jitter_wh=0.5, truncate=True)],
        regions=dict(jitter=4),
        collapsed=("ccop.between_images", 1.0),
    ),
}
