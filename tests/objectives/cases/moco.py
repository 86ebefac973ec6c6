from tests.objectives.cases import Case

SMALL = dict(hidden=12, dim=8, length=12)
MOCO = dict(type="MoCo", **SMALL)
CASES = {
    "moco": Case([MOCO], collapsed=("moco.positive_cosine", 1.0)),
    "moco-v1": Case([dict(MOCO, hidden=None, temperature=0.07)]),
    "densecl": Case(
        [dict(MOCO, weight=0.5), dict(type="DenseCL", weight=0.5, **SMALL)], collapsed=("densecl.positive_cosine", 1.0)
    ),
    **{
        f"densecl-{name}": Case([dict(type="DenseCL", correspondence=dict(type=name, **options), **SMALL)])
        for name, options in dict(
            SoftAttention={}, DistanceThreshold={}, OverlapGrid=dict(size=3), RandomPoints=dict(count=5)
        ).items()
    },
}
