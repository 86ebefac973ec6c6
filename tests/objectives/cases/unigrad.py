from tests.objectives.cases import AFTER, EMA, STOP, Case

# Of few dimensions, where a weight of 100 would drown the positive term.
PLAIN = dict(type="UniGrad", hidden=12, dim=8, negative_weight=4.0)
DENSE = dict(
    type="DenseUniGrad", hidden=12, dim=8, negative_weight=0.5, correspondence=dict(type="OverlapGrid", size=3)
)
CASES = {
    "unigrad": Case([PLAIN], (EMA, AFTER, STOP), single_image="refused", collapsed=("unigrad.directions", 1.0)),
    "unigrad-two-levels": Case([PLAIN, dict(PLAIN, name="unigrad_mid", level=0)], single_image="refused"),
    "denseunigrad": Case([DENSE], (EMA, AFTER, STOP), collapsed=("denseunigrad.between_images", 1.0)),
    "denseunigrad-one-way-levels": Case([dict(DENSE, symmetric=False), dict(DENSE, name="shallow", level=0)]),
    **{
        f"denseunigrad-{name}": Case([dict(DENSE, correspondence=dict(type=name, **options))])
        for name, options in dict(
            RandomPoints=dict(count=7), DistanceThreshold={}, FeatureArgmax={}, SoftAttention={}
        ).items()
    },
    "unigrad+denseunigrad": Case([PLAIN, dict(DENSE, weight=0.5)], single_image="refused"),
}
