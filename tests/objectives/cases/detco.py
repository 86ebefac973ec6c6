from tests.objectives.cases import Case

SMALL = dict(type="DetCo", levels=(0, 1), weights=(0.7, 1.0), hidden=12, dim=8, length=12)
CASES = {
    "detco": Case(
        [dict(SMALL, local_hidden=12, tile=32)],
        sizes=(64, 64, 102, 102),
        uniforms={2: dict(jigsaw=27), 3: dict(jigsaw=27)},
        collapsed=("detco.positive_cosine", 1.0),
    ),
    "detco-2x2-one-level": Case(
        [dict(SMALL, levels=(-1,), weights=(1.0,), local_hidden=12, grid=2, tile=32)],
        sizes=(64, 64, 72, 72),
        uniforms={2: dict(jigsaw=12), 3: dict(jigsaw=12)},
    ),
    "detco-global": Case([dict(SMALL, hidden=None, local=False)]),
}
