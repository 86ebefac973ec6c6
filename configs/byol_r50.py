"""BYOL, ResNet-50, 300 epochs of ImageNet (Grill et al., NeurIPS 2020, arXiv 2006.07733).

    python tools/train.py configs/byol_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/byol_r50.py --launcher pytorch --data-root imagenet/train/

Paper: 72.5 linear top-1 (1000 epochs: 74.3); 1000 epochs took 8 hours on 512 TPU v3 cores. The SimSiam paper's
200-epoch rerun gives VOC Faster R-CNN C4 55.3 AP.
Recipe: the released code at 300 epochs, including `zero_gamma` (the paper's numbers are with ones), without the linear
classifier that it trains alongside. Its 1000-epoch recipe has a learning rate of 0.2 per 256 images, weight decay
1.5e-6 and a target momentum from 0.996. Different here: torchvision's padding, colour jitter and crop sampling, and
PyTorch's initialisation of the heads. BYOL is known to get worse below 256 images a step; use a target momentum closer
to 1 then.
"""

_base_ = ["_base_/runtime.py", "_base_/views_byol.py"]

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=50, out_indices=(3,), norm_cfg=dict(type="SyncBN"), zero_gamma=True)
    ),
    # Updated after each optimiser step, with momentum 0.99 to 1 along a cosine over the run.
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.99), timing="after_step"),
    objectives=[dict(type="BYOL", hidden=4096, dim=256)],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 32 GPUs x 128 images = 4096 images a step; 1.28 M images give 312 steps an epoch, 93,600 in all.
train_dataloader = dict(batch_size=128, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=300)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    # lr: 0.3 per 256 images. Batch norm parameters and biases have neither weight decay nor LARS scaling.
    optimizer=dict(type="LARS", lr=4.8, momentum=0.9, weight_decay=1e-6, eps=0.0),
    paramwise_cfg=dict(exclude=("1d",)),
)
# Linear warm-up from 0 over 10 epochs, then a cosine to 0, per step.
default_hooks = dict(
    lr=dict(schedule=dict(type="warmup_cosine", warmup_epochs=10, start_factor=0.0), reference_batch=4096)
)
