"""PixPro, ResNet-50, 100 epochs of ImageNet (Xie et al., CVPR 2021, arXiv 2011.10043).

    python tools/train.py configs/pixpro_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/pixpro_r50.py --launcher pytorch --data-root imagenet/train/

Paper: VOC Faster R-CNN C4 58.8 AP, COCO Mask R-CNN FPN 1x 40.8 box / 36.8 mask AP. Training time is not published.
Recipe: the released code, whose projector is wider than the paper says (4096, not 2048).
"""

_base_ = "_base_/runtime.py"

jitter = dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
gray = dict(type="Grayscale", p=0.2)
crop = dict(size=224, scale=(0.08, 1.0), hflip=0.5)
views = [
    dict(crop, photometric=[jitter, gray, dict(type="GaussianBlur", sigma=(0.1, 2.0), p=1.0)]),
    dict(
        crop,
        photometric=[
            jitter,
            gray,
            dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.1),
            dict(type="Solarize", threshold=128, p=0.2),
        ],
    ),
]

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=50, out_indices=(3,), norm_cfg=dict(type="SyncBN"), zero_gamma=True)
    ),
    # Momentum 0.99 to 1 along a cosine over the run, counted as in the official code.
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.99, total="images")),
    objectives=[dict(type="PixPro", hidden=4096, dim=256, transform_layers=1, gamma=2.0, clamp=0.0, threshold=0.7)],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 8 GPUs x 128 images = 1024 images a step; 1.28 M images give 1251 steps an epoch, 125,100 in all.
train_dataloader = dict(batch_size=128, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=100)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",  # bf16 where the device has it
    # lr: 1.0 per 256 images. Batch norm parameters and biases have neither weight decay nor LARS scaling.
    optimizer=dict(type="LARS", lr=4.0, momentum=0.9, weight_decay=1e-5),
    paramwise_cfg=dict(exclude=("1d",)),
)
# Linear warm-up from a hundredth of the learning rate over 5 epochs, then a cosine to 1e-6.
default_hooks = dict(
    lr=dict(
        schedule=dict(type="warmup_cosine", warmup_epochs=5, start_factor=0.01, final=1e-6),
        reference_batch=1024,
    )
)
