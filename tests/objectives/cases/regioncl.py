from tests.objectives.cases import STOP, Case

# Maps of 3 x 3 cells of 32 pixels, rectangles of 1 or 2 cells a side.
SWAP = dict(lower=1, upper=3)
MOCO = dict(type="RegionCL", hidden=12, dim=8, length=12, **SWAP)
SIMSIAM = dict(type="RegionCLSimSiam", hidden=12, dim=12, bottleneck=6, **SWAP)
RANDOM = dict(MOCO, pairing="permutation", placement="cells", instance_weight=0.5)
DENSE = dict(type="DenseCL", weight=0.5, hidden=12, dim=8, length=12)
COMMON = dict(sizes=(96, 96), patch_size=32, permutes=False)
CASES = {
    "regioncl": Case(
        [MOCO], two_ranks=[dict(MOCO, groups=2)], collapsed=("regioncl.positive_cosine_region", 1.0), **COMMON
    ),
    "regioncl-densecl": Case([RANDOM, DENSE], two_ranks=[dict(RANDOM, groups=2), DENSE], **COMMON),
    "regioncl-simsiam": Case(
        [dict(SIMSIAM, pairing="shift", placement="aligned")],
        (STOP,),
        two_ranks=[dict(SIMSIAM, pairing="shift", placement="aligned", groups=2)],
        single_image="refused",
        collapsed=("regionclsimsiam.channel_std", 0.0),
        **COMMON,
    ),
}
