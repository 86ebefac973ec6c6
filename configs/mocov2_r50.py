"""MoCo v2, ResNet-50, 200 epochs of ImageNet (Chen et al., arXiv 2003.04297; MoCo: He et al., CVPR 2020).

    python tools/train.py configs/mocov2_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/mocov2_r50.py --launcher pytorch --data-root imagenet/train/

Paper: 67.5 linear top-1; VOC Faster R-CNN C4 57.0 AP; 53 hours on 8 V100. 800 epochs: 71.1 and 57.4.
Recipe: the released code. Batch norm is synchronised; the code shuffles the keys over the GPUs instead.
"""

_base_ = ["_base_/runtime.py", "_base_/views_mocov2.py"]

model = dict(
    type="TwoBranch",
    online=dict(backbone=dict(type="ResNet", depth=50, out_indices=(3,), norm_cfg=dict(type="SyncBN"))),
    target=dict(kind="ema", momentum=0.999),
    objectives=[dict(type="MoCo", hidden=2048, dim=128, length=65536, temperature=0.2)],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 8 GPUs x 32 images = 256 images a step; 1.28 M images give 5004 steps an epoch.
train_dataloader = dict(batch_size=32, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=200)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    # Weight decay on all parameters, including biases and norms.
    optimizer=dict(type="SGD", lr=0.03, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=()),
)
# A cosine to 0, updated once per epoch, without warm-up.
default_hooks = dict(lr=dict(schedule=dict(type="warmup_cosine", by_epoch=True), reference_batch=256))
