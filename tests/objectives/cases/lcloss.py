from tests.objectives.cases import AFTER, EMA, STOP, Case

SMALL = dict(type="LCLoss", hidden=12, dim=8, correspondence=dict(type="RandomPoints", count=7))
CASES = {
    "lcloss": Case([SMALL], (EMA, AFTER, STOP), collapsed=("lcloss.between_images", 1.0)),
    "lcloss-cells-levels": Case(
        [dict(SMALL, candidates="cells"), dict(SMALL, candidates="cells", level=0, name="shallow")]
    ),
    "lcloss-batch": Case([dict(SMALL, candidates="batch", predictor=False)]),
    **{
        f"lcloss-{name}-{candidates}": Case(
            [dict(SMALL, candidates=candidates, correspondence=dict(type=name, **options))]
        )
        for name, options in dict(OverlapGrid=dict(size=3), DistanceThreshold={}, FeatureArgmax={}).items()
        for candidates in ("points", "cells")
    },
    "byol+lcloss": Case(
        [dict(type="BYOL", hidden=12, dim=8), dict(SMALL, weight=0.1)], (AFTER,), single_image="refused"
    ),
}
