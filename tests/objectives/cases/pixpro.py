from tests.objectives.cases import AFTER, EMA, STOP, SYNC, Case

SMALL = dict(hidden=12, dim=8)
# Every kind of target there is: what holds for this method's terms on each of them holds for the model.
TARGETS = (EMA, AFTER, STOP, dict(kind="frozen"))
PIXPRO = dict(type="PixPro", **SMALL)
# Two levels and two towers, so that every convolution takes part.
THROUGH = ("neck.0", "cls.1", "reg.0")
HEAD = dict(type="DenseHeadConvs", feat_channels=6, stacked_convs=2, norm_cfg=dict(type="GN", num_groups=2))
CASES = {
    "pixpro": Case([PIXPRO], TARGETS, collapsed=("pixpro.between_images", 1.0)),
    "pixpro-0-layers": Case([dict(PIXPRO, transform_layers=0)]),
    "pixpro-2-layers": Case([dict(PIXPRO, transform_layers=2, transform_norm=SYNC, gamma=1.0)]),
    "pixcontrast": Case([dict(type="PixContrast", **SMALL)], TARGETS, collapsed=("pixcontrast.between_images", 1.0)),
    "instance": Case([dict(type="InstanceCosine", **SMALL)], TARGETS, collapsed=("instancecosine.between_images", 1.0)),
    "pixpro+instance": Case([PIXPRO, dict(type="InstanceCosine", weight=0.5, **SMALL)]),
    "pixpro-neck-head": Case(
        [dict(PIXPRO, name=f"pixpro_{level.replace('.', '')}", level=level) for level in THROUGH],
        targets=(EMA, STOP),
        neck=dict(type="FPN", out_channels=10),
        head=HEAD,
    ),
    "levels": Case([dict(PIXPRO, level=-1), dict(type="PixContrast", level=0, weight=0.1, **SMALL)]),
}
