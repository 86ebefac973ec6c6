"""SimSiam, ResNet-50, 100 epochs of ImageNet (Chen & He, CVPR 2021, arXiv 2011.10566).

    python tools/train.py configs/simsiam_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/simsiam_r50.py --launcher pytorch --data-root imagenet/train/

Paper: 68.1 linear top-1; with 200 epochs VOC Faster R-CNN C4 56.4 AP (57.0 with learning rate 0.5 per 256 images and
weight decay 1e-5), COCO Mask R-CNN C4 1x 37.9 box / 33.2 mask AP. Training time is not published.
Recipe: the released code, with the predictor's constant learning rate, as in the published model. The paper calls
`zero_gamma` important for stability. Watch `channel_std`: near 0 the training has collapsed. Photos without one
central object are a known cause.
"""

_base_ = ["_base_/runtime.py", "_base_/views_mocov2.py"]

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=50, out_indices=(3,), norm_cfg=dict(type="SyncBN"), zero_gamma=True)
    ),
    target=dict(kind="stop_gradient"),
    objectives=[dict(type="SimSiam", hidden=2048, dim=2048, bottleneck=512)],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 8 GPUs x 64 images = 512 images a step; 1.28 M images give 2502 steps an epoch.
train_dataloader = dict(batch_size=64, dataset=dict(type="UnlabelledImages", source="data/imagenet/train"))
train_cfg = dict(by_epoch=True, max_epochs=100)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    # lr: 0.05 per 256 images. Weight decay on all parameters, including biases and norms.
    optimizer=dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=(), constant_lr=("objectives.simsiam.predictor",)),
)
# A cosine to 0, updated once per epoch, without warm-up.
default_hooks = dict(lr=dict(schedule=dict(type="warmup_cosine", by_epoch=True), reference_batch=512))
