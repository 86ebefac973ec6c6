"""SIM (SiameseIM), ViT-B/16, 1600 epochs of ImageNet (Tao et al., CVPR 2023, arXiv 2206.01204).

    python tools/train.py configs/sim_vit_b.py --data-root photos/
    torchrun --nnodes 4 --nproc_per_node 8 tools/train.py configs/sim_vit_b.py --launcher pytorch \
        --data-root imagenet/train/

Released code's README: 84.1 fine-tuned, 78.0 linear and 65.1 (1 % of the labels) top-1; COCO Mask R-CNN with ViTDet
52.1 box / 46.2 mask AP (MAE 51.6 / 45.9), LVIS 40.5 box AP, ADE20K 51.1 mIoU; 32 V100 of 32 GB. Training time is not
published.
Recipe: the released code, which has no global loss. It trains in fp16, and recommends 400 epochs for a shorter run:
`--set train_cfg.max_epochs=400`.
"""

_base_ = ["_base_/runtime.py", "_base_/views_byol.py"]

# Masks 118 of 14x14 patches, 60 % of the first view, in blocks.
views = [
    dict(_base_.views[0], mask=dict(type="blocks", patch_size=16, hidden=118, min_block=16)),
    _base_.views[1],
]

model = dict(
    type="TwoBranch",
    # The patch embedding is frozen as initialised; there is no final norm.
    online=dict(
        backbone=dict(type="ViT", image_size=224, patch_size=16, dim=768, depth=12, heads=12, freeze_patch_embed=True)
    ),
    # Updated before each forward, with momentum 0.995 to 1 along a cosine over the run; only parameters are averaged.
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.995)),
    objectives=[
        dict(type="SIM", dim=768, heads=16, projector_depth=2, decoder_depth=4, negative_weight=0.02, patch_size=16)
    ],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 32 GPUs x 128 images = 4096 images a step; 1.28 M images give 312 steps an epoch, 499,200 in all.
train_dataloader = dict(batch_size=128, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=1600)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",  # bf16 where the device has it; officially fp16
    # lr: 6.25e-5 per 256 images. Biases and norms have no weight decay; class and mask token do.
    optimizer=dict(type="AdamW", lr=1e-3, betas=(0.9, 0.95), weight_decay=0.05),
    paramwise_cfg=dict(exclude=("1d",)),
    clip_grad=dict(max_norm=1.0),
)
# Linear warm-up from 0 over 40 epochs, then a cosine to 0, per step.
default_hooks = dict(
    lr=dict(schedule=dict(type="warmup_cosine", warmup_epochs=40, start_factor=0.0), reference_batch=4096)
)

# 231 M parameters.
demo = {"train_cfg.max_epochs": 1, "train_dataloader.batch_size": 4}
