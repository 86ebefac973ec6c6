"""SIM on a machine without GPU: a ViT of 8 blocks and 192 channels, 96 pixels, patches of 8 pixels.

    python tools/train.py configs/sim_vit_tiny.py --data-root photos/

Not a published recipe. From SIM (Tao et al., CVPR 2023; `sim_vit_b.py`): objective, views, share of the view that is
masked, optimiser. Smaller: encoder, projector and decoder. The target moves faster, the warm-up is shorter, and the
learning rate is higher than proportional to the batch, because there are 2,300 steps instead of half a million; the
values were chosen by reasoning, not by a sweep.
"""

_base_ = "sim_vit_b.py"

# 12x12 patches, 60 % of them masked, as in the recipe.
views = [
    dict(_base_.views[0], size=96, mask=dict(type="blocks", patch_size=8, hidden=86, min_block=12)),
    dict(_base_.views[1], size=96),
]

model = dict(
    online=dict(backbone=dict(image_size=96, patch_size=8, dim=192, depth=8, heads=3)),
    target=dict(momentum=dict(base=0.99)),
    objectives=[dict(type="SIM", dim=192, heads=4, projector_depth=1, decoder_depth=2, patch_size=8)],
)

# 1 process x 64 images = 64 images a step; 3,000 photos give 46 steps an epoch.
train_dataloader = dict(batch_size=64)
train_cfg = dict(max_epochs=50)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
default_hooks = dict(lr=dict(schedule=dict(warmup_epochs=5), reference_batch=64))

demo = {"train_cfg.max_epochs": 2, "train_dataloader.batch_size": 6}
