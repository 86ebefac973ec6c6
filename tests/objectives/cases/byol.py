from tests.objectives.cases import AFTER, EMA, Case

BYOL = dict(type="BYOL", hidden=12, dim=8)
CASES = {
    "byol": Case([BYOL], targets=(AFTER, EMA), single_image="refused", collapsed=("byol.channel_std", 0.0)),
    "byol-two-levels": Case(
        [BYOL, dict(BYOL, name="byol_mid", weight=0.5, level=0, views=(1, 0), last_bias=True)],
        targets=(AFTER,),
        single_image="refused",
    ),
}
