"""PixPro with its instance branch, small: pixel propagation and instance consistency on C5, at 128 pixels.

    python tools/train.py configs/small/pixpro_instance_r18.py --data-root photos/

Not a published recipe. The instance term has the weight 1; the released code leaves it open (its scripts switch the
term off); sizes and rates are those of `pixpro_r18.py`.
"""

_base_ = "../pixpro_r50.py"

views = [dict(view, size=128) for view in _base_.views]

model = dict(
    online=dict(backbone=dict(depth=18)),
    objectives=[dict(type="PixPro", hidden=1024, dim=128), dict(type="InstanceCosine", hidden=1024, dim=128)],
)
# 1 process x 64 images = 64 images a step; 3,000 photos give 46 steps an epoch.
train_dataloader = dict(batch_size=64)
train_cfg = dict(by_epoch=True, max_epochs=24)
optim_wrapper = dict(optimizer=dict(lr=1.0))
default_hooks = dict(lr=dict(schedule=dict(warmup_epochs=1), reference_batch=64))
