from tests.objectives.cases import AFTER, EMA, STOP, Case

SMALL = dict(hidden=12, dim=8)
SIMSIAM = dict(type="SimSiam", bottleneck=4, **SMALL)
DECODER = dict(type="SumDecoder", out_channels=10)
SEGMENTATION = dict(type="DenseSiamSegmentation", hidden=12, classes=5, aux_classes=7)
LATER = dict(type="switch", before=0.05, after=0.1, at_step=1)
CASES = {
    "densesiam": Case(
        [SIMSIAM, dict(type="DenseSiam", correspondence=dict(type="OverlapGrid", size=3), **SMALL)],
        targets=(STOP, EMA),
        collapsed=("densesiam.channel_std", 0.0),
        single_image="refused",  # by SimSiam's heads on vectors
    ),
    "densesiam-scheduled": Case([dict(type="DenseSiam", region_weight=LATER, **SMALL)], targets=(STOP,)),
    "densesiam-pixels": Case([dict(type="DenseSiam", region_weight=0, **SMALL)], targets=(STOP,)),
    **{
        f"densesiam-{name}": Case([dict(type="DenseSiam", correspondence=dict(type=name), **SMALL)], targets=(STOP,))
        for name in ("FeatureArgmax", "DistanceThreshold")
    },
    "densesiam-segmentation": Case(
        [SEGMENTATION], targets=(STOP, AFTER), neck=DECODER, collapsed=("densesiamsegmentation.channel_std", 0.0)
    ),
    "densesiam-segmentation-plain": Case(
        [
            dict(
                SEGMENTATION, aux_classes=0, region_predictor=False, rebalance=False, level=-1, norm=dict(type="SyncBN")
            )
        ],
        targets=(STOP,),
    ),
}
