"""Minutes instead of days: ResNet-18 at 160 pixels, maps of C4 (10x10 cells) and C5, 64 images a step.

The configs of `configs/small/` share this base (MoCo v2's views, batch size, precision), so that they differ in their
objectives only. Targets move faster and learning rates are higher than in published recipes, because there are hundreds
of steps instead of hundreds of thousands; the values were chosen by reasoning, not by a sweep.
"""

_base_ = ["runtime.py", "views_mocov2.py"]

views = [dict(_base_.views[0], size=160)]

model = dict(
    type="TwoBranch",
    online=dict(backbone=dict(type="ResNet", depth=18, out_indices=(2, 3), norm_cfg=dict(type="SyncBN"))),
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 1 process x 64 images.
train_dataloader = dict(batch_size=64, dataset=dict(type="UnlabelledImages", source="photos"))
train_cfg = dict(by_epoch=True, max_epochs=20)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    optimizer=dict(type="SGD", lr=0.06, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=()),
)
default_hooks = dict(lr=dict(schedule=dict(type="warmup_cosine", warmup_epochs=1), reference_batch=64))
