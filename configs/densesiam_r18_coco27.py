"""DenseSiam for unsupervised segmentation, ResNet-18 on curated COCO, 27 classes (Zhang et al., ECCV 2022, 2203.11075).

    python tools/train.py configs/densesiam_r18_coco27.py --init resnet18.pth --data-root photos/
    torchrun --nproc_per_node 4 tools/train.py configs/densesiam_r18_coco27.py --launcher pytorch --init resnet18.pth
    python tools/segment.py configs/densesiam_r18_coco27.py work_dirs/densesiam_r18_coco27/epoch_10.pth \
        --images val2017/ --labels labels27/

Released code: 16.4 mIoU on 2,175 images of val2017 (PiCIE, run again, 14.4). The released run starts from
torchvision's ResNet-18, supervised on ImageNet; pass it, or any other backbone, with `--init`. Without it, this is
another experiment.
Data: PiCIE's list of 49,629 images of train2017, one file name per line; `root` is their folder.
Recipe: the released code, except for
- draws: its "replayed" transforms give an image one crop and one set of colours for all ten epochs; here every epoch
  draws anew;
- alignment: here, features of the second view are sampled at the first view's cells; the code crops them to whole cells;
- colours change the crops of 320 pixels; in the code, the square of 640 pixels before cropping. So contrast pivots on
  another mean; the blur corresponds to U(0.1, 2) at 640 pixels, exactly for the second view. (The sign error in the
  code's sigma is not reproduced.)
- precision: bf16 where the device has it; `--set optim_wrapper.precision=fp32` is the code's.
"""

_base_ = "_base_/runtime.py"

strengths = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, p=0.8)
photometric = [
    # In this order, each applied with its own probability.
    *(dict(type="ColorJitter", **{**strengths, name: 0.3}) for name in ("brightness", "contrast", "saturation")),
    dict(type="ColorJitter", **{**strengths, "hue": 0.1}),
    dict(type="Grayscale", p=0.2),
    dict(type="GaussianBlur", sigma=(0.05, 1.0), p=0.5),
]
square = dict(size=320, within="centre", ratio=(1.0, 1.0), photometric=photometric)
views = [
    dict(square, scale=(0.5, 1.0), sampling="side", hflip=0.5),
    dict(square, scale=(1.0, 1.0), hflip=0.0),
]

model = dict(
    type="TwoBranch",
    online=dict(
        backbone=dict(type="ResNet", depth=18, out_indices=(0, 1, 2, 3), norm_cfg=dict(type="SyncBN")),
        neck=dict(type="SumDecoder", out_channels=128),
    ),
    target=dict(kind="stop_gradient"),
    objectives=[
        dict(
            type="DenseSiamSegmentation",
            level="neck.0",
            hidden=128,
            classes=27,
            aux_classes=128,
            seg_weight=1.0,
            rebalance=True,
            # 0.1 in the last two epochs.
            region_weight=dict(type="switch", before=0.0, after=0.1, at_epoch=8),
            temperature=0.1,
        )
    ],
    data_preprocessor=dict(type="ViewPreprocessor"),
)

# 4 GPUs x 64 images = 256 images a step; 49,629 images give 193 steps an epoch.
train_dataloader = dict(
    batch_size=64,
    dataset=dict(type="UnlabelledImages", source="data/coco/curated_train2017.txt", root="data/coco/train2017"),
)
train_cfg = dict(by_epoch=True, max_epochs=10)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="auto",
    # Weight decay on all parameters, including biases and norms.
    optimizer=dict(type="SGD", lr=0.05, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=()),
)
default_hooks = dict(
    checkpoint=dict(interval=1),
    lr=dict(schedule=dict(type="constant"), reference_batch=256),
)
