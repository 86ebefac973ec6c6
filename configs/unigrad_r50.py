"""UniGrad, ResNet-50, 100 epochs of ImageNet (Tao et al., CVPR 2022, arXiv 2112.05141).

    python tools/train.py configs/unigrad_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/unigrad_r50.py --launcher pytorch --data-root imagenet/train/

Paper: 70.3 linear top-1. Training time is not published.
Recipe: the released code. Its learning rate follows a cosine that is as long as the whole run but starts after the
warm-up, so it ends at 0.7 % of the peak instead of 0.1 %. We chose the number of GPUs. The correlation matrix is a
buffer of 16 MiB, summed over the ranks in every step.
"""

_base_ = ["_base_/runtime.py", "_base_/views_mocov2.py"]

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=50, out_indices=(3,), norm_cfg=dict(type="SyncBN"), zero_gamma=True)
    ),
    # Updated before each step's forward, with momentum 0.996 to 1 along a cosine over the run.
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.996)),
    objectives=[dict(type="UniGrad", hidden=2048, dim=2048, negative_weight=100.0, momentum=0.99)],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 8 GPUs x 128 images = 1024 images a step; 1.28 M images give 1251 steps an epoch.
train_dataloader = dict(batch_size=128, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=100)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    # lr: 0.05 per 256 images. Weight decay on all parameters, including biases and norms.
    optimizer=dict(type="SGD", lr=0.2, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=()),
)
# Linear warm-up over 5 epochs from a thousandth of the learning rate, then the first 95 % of a cosine of 100 epochs back
# to it, updated per step.
default_hooks = dict(
    lr=dict(
        schedule=dict(type="warmup_cosine", warmup_epochs=5, start_factor=1e-3, final=2e-4, stretched=True),
        reference_batch=1024,
    )
)
