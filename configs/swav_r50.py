"""SwAV, ResNet-50, 400 epochs of ImageNet at 256 images a step (Caron et al., NeurIPS 2020, arXiv 2006.09882).

    python tools/train.py configs/swav_r50.py --data-root photos/
    torchrun --nproc_per_node 4 tools/train.py configs/swav_r50.py --launcher pytorch --data-root imagenet/train/

Released model: 74.3 linear top-1 (200 epochs: 72.7); 52 minutes an epoch. The recipe at 4096 images a step (75.3 after
800 epochs, 3:40 minutes an epoch on 64 V100) differs from this one scaled: lr 4.8, final 0.0048, warm-up from 0.3 over
10 epochs (`start_factor=0.0625`), no queue, prototypes trained from step 313 on.
Recipe: the released code. A loss stuck at ln(prototypes) is a collapse: set `epsilon=0.03`, or freeze the prototypes
longer. If the loss rises for good when the queue starts, use a shorter queue, or start it later.
"""

_base_ = ["_base_/runtime.py", "_base_/views_swav.py"]

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=50, out_indices=(3,), norm_cfg=dict(type="SyncBN"), zero_gamma=False)
    ),
    target=dict(kind="stop_gradient"),
    objectives=[
        dict(
            type="SwAV",
            hidden=2048,
            dim=128,
            prototypes=3000,
            temperature=0.1,
            epsilon=0.05,
            iterations=3,
            views=((0, 1), (2, 3, 4, 5, 6, 7)),
            assign=(0, 1),
            queue_length=3840,
            use_queue=dict(type="switch", before=False, after=True, at_epoch=15),
            train_prototypes=dict(type="switch", before=False, after=True, at_step=5005),
        )
    ],
    # The released code has 0.228 instead of ImageNet's deviation of 0.229.
    data_preprocessor=dict(type="ViewPreprocessor", std=(0.228 * 255, 0.224 * 255, 0.225 * 255)),
)

# 4 GPUs x 64 images = 256 images a step; 1.28 M images give 5004 steps an epoch.
train_dataloader = dict(batch_size=64, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=400)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    # Weight decay and LARC scaling on all parameters, including biases and norms.
    optimizer=dict(type="LARS", form="larc", lr=0.6, momentum=0.9, weight_decay=1e-6),
    paramwise_cfg=dict(exclude=()),
)
# A cosine to 0.0006, updated per step, without warm-up.
default_hooks = dict(lr=dict(schedule=dict(type="warmup_cosine", final=0.0006), reference_batch=256))
