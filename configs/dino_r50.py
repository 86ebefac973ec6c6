"""DINO, ResNet-50, 200 epochs of ImageNet at 256 images a step (Caron et al., ICCV 2021, arXiv 2104.14294).

    python tools/train.py configs/dino_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/dino_r50.py --launcher pytorch --data-root imagenet/train/

This is the baseline of SCFS's tables: 73.0 linear top-1, 64.0 k-NN. (DINO's released ResNet-50, 800 epochs at 4080
images a step: 75.3 and 67.5.) Training time is not published. Loss, head, centre, target and photometric ops: DINO's
released code. Schedules, scales and epochs: SCFS's released code, without SCFS's terms; we infer that the baseline was
trained in this way. DINO's own 100-epoch command differs: lr 0.03 with final 1e-6, scales (0.14, 1) and (0.05, 0.14),
teacher temperature 0.04 throughout.
"""

_base_ = ["_base_/runtime.py", "_base_/views_dino.py"]

model = dict(
    type="TwoBranch",
    online=dict(backbone=dict(type="ResNet", depth=50, out_indices=(3,), norm_cfg=dict(type="SyncBN"))),
    # Momentum 0.996 to 1 along a cosine over the run; only parameters are averaged.
    target=dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.996), timing="after_step"),
    objectives=[
        dict(
            type="DINO",
            views=((0, 1), (2, 3, 4, 5, 6, 7, 8, 9)),
            prototypes=65536,
            student_temperature=0.1,
            # numpy.linspace(0.04, 0.07, 50), one entry per epoch; then 0.07.
            teacher_temperature=dict(type="linear", start=0.04, end=0.07, epochs=50, by_epoch=True, inclusive=True),
            momentum=0.9,
            # Frozen in the first epoch.
            train_prototypes=dict(type="switch", before=False, after=True, at_epoch=1),
        )
    ],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 8 GPUs x 32 images = 256 images a step; 1.28 M images give 5004 steps an epoch.
train_dataloader = dict(batch_size=32, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=200)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",  # bf16 where the device has it; officially fp16
    # Batch norm parameters and biases have no weight decay.
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=("1d",)),
    # Clips the norm of each gradient separately, not of all together.
    clip_grad=dict(type="per_parameter", max_norm=3.0),
)
default_hooks = dict(
    # Linear warm-up from 0 over 10 epochs, then a cosine to 0.0048, which is not scaled with the batch.
    lr=dict(
        schedule=dict(type="warmup_cosine", warmup_epochs=10, start_factor=0.0, final=0.0048, inclusive=True),
        reference_batch=256,
    ),
    export=dict(branch="target"),  # the published numbers are the target's
)
