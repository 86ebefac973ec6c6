"""PixPro, ResNet-18 at 128 pixels, for small machines and small data sets: objective and views of `pixpro_r50.py`.

    python tools/train.py configs/pixpro_r18.py --data-root photos/

Not a published recipe. It differs in resolution (about half, 4x4 cells), a narrower projector, 64 images a step, and a
learning rate above the linear rule's 0.25 for that batch, because LARS changes weights by a share of their norm, and a
small data set gives few steps. Measured with `train_cfg.max_epochs=13` on 2,980 photos and two CPU cores: 2.3 s a step,
loss -3.2 from epoch 2 on, `between_images` falling from 0.65 to 0.5.
"""

_base_ = "pixpro_r50.py"

views = [dict(view, size=128) for view in _base_.views]

model = dict(
    online=dict(backbone=dict(depth=18)),
    objectives=[dict(type="PixPro", hidden=1024, dim=128)],
)
# 1 process x 64 images = 64 images a step; 3,000 photos give 46 steps an epoch.
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=1.0))
default_hooks = dict(lr=dict(schedule=dict(warmup_epochs=1), reference_batch=64))
