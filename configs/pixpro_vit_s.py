"""PixPro on ViT-S/16, 100 epochs of ImageNet: pixel propagation over 14x14 cells of a transformer.

    python tools/train.py configs/pixpro_vit_s.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/pixpro_vit_s.py --launcher pytorch --data-root imagenet/train/

Not a published recipe: PixPro (Xie et al., CVPR 2021, arXiv 2011.10043) is published with ResNet-50 only. From
`pixpro_r50.py`: objective, views, target, batch, epochs. From SIM (Tao et al., CVPR 2023; `sim_vit_b.py`): AdamW and
its learning rate per 256 images, gradients clipped, a frozen patch embedding, no final norm, so that the weights go
into ViTDet. Chosen here: 10 epochs of warm-up.
"""

_base_ = "pixpro_r50.py"

model = dict(
    online=dict(
        backbone=dict(
            _delete_=True,
            type="ViT",
            image_size=224,
            patch_size=16,
            dim=384,
            depth=12,
            heads=6,
            freeze_patch_embed=True,
        )
    ),
)

optim_wrapper = dict(
    # lr: 6.25e-5 per 256 images. Biases and norms have no weight decay; the class token does.
    optimizer=dict(_delete_=True, type="AdamW", lr=2.5e-4, betas=(0.9, 0.95), weight_decay=0.05),
    clip_grad=dict(max_norm=1.0),
)
# 8 GPUs x 128 images = 1024 images a step. Linear warm-up from 0 over 10 epochs, then a cosine to 1e-6.
default_hooks = dict(lr=dict(schedule=dict(warmup_epochs=10, start_factor=0.0)))
