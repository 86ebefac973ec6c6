"""SIM (SiameseIM), ViT-S/16, 400 epochs of ImageNet at 1024 images a step (Tao et al., CVPR 2023, arXiv 2206.01204).

    python tools/train.py configs/sim_vit_s.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/sim_vit_s.py --launcher pytorch --data-root imagenet/train/

Not a published recipe: the authors report ViT-B, see `sim_vit_b.py`. From that config: objective, views, mask, target,
optimiser and schedule. Chosen here: a projector and decoder as wide as the encoder, with heads of 48 channels as at
ViT-B; a quarter of the batch, with the learning rate in proportion; epochs.
"""

_base_ = "sim_vit_b.py"

model = dict(
    online=dict(backbone=dict(dim=384, heads=6)),
    objectives=[dict(type="SIM", dim=384, heads=8)],
)

# 8 GPUs x 128 images = 1024 images a step; 1.28 M images give 1251 steps an epoch. lr: 2.5e-4.
train_cfg = dict(max_epochs=400)
