"""PixPro, ResNet-18 at 128 pixels, for small machines and small data sets: `pixpro_r50.py`'s objective and views.

    python tools/train.py configs/pixpro_r18.py --data-root photos/

Not a published recipe. What differs and why: half the resolution and stage 3 as output, so that maps stay 8x8; a
narrower projector; batch 64; the momentum of the target starts at 0.99 as published.
"""

_base_ = "pixpro_r50.py"

views = _base_.views
for view in views:
    view["size"] = 128

model = dict(
    online=dict(backbone=dict(depth=18)),
    objectives=[dict(type="PixPro", hidden=1024, dim=128)],
    data_preprocessor=dict(views=views),
)
# 1 process x 64 images = 64 images a step: the recipe's rate of 1.0 per 256 images gives 0.25.
train_dataloader = dict(batch_size=64, dataset=dict(views=views))
