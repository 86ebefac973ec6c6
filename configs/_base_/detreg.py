"""What DETReg's configs share: whole images with selective search's regions, patches, optimiser."""

_base_ = "runtime.py"

custom_imports = dict(imports=["densessl.detectors"])

# The whole image: flipped; its short side to one of ten lengths, after a crop in half of the cases.
view = dict(
    short=(320, 336, 352, 368, 400, 416, 432, 448, 464, 480),
    longest=600,
    crop_short=(400, 500, 600),
    crop_sides=(384, 600),
)
# Of patches.
photometric = [
    dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    dict(type="Grayscale", p=0.2),
    dict(type="GaussianBlur", sigma=(0.1, 2.0), p=0.5),
]
# Thirty an image, ranked anew each epoch.
regions = dict(type="RegionStore", path="data/regions", select=[dict(type="TopK", k=30, ranking="uijlings")])

model = dict(
    type="DetectorPretraining",
    pretext=dict(type="DETReg", teacher=dict(type="ResNet", depth=50, out_indices=(1,))),
    data_preprocessor=dict(type="RegionPreprocessor"),
)

# 8 GPUs x 24 images = 192 images a step.
train_dataloader = dict(
    batch_size=24, dataset=dict(type="RegionImages", source="data/imagenet/train", patch=128, at_least=2)
)
optim_wrapper = dict(
    constructor="DenseOptimWrapperConstructor",
    precision="fp32",  # as the official code
    optimizer=dict(type="AdamW", lr=1e-4, weight_decay=1e-4),
    paramwise_cfg=dict(exclude=()),
    clip_grad=dict(max_norm=0.1),
)
custom_hooks = [
    dict(type="StepHook"),
    # Not scaled with the batch; the drop of the official command lies behind the end of the run.
    dict(type="LRHook", schedule=dict(type="constant", value=1e-4)),
]
demo = {
    "train_dataloader.batch_size": 2,
    "train_cfg.max_epochs": 1,
    "train_dataloader.dataset.limit": 8,
    "model.pretext.allow_random_teacher": True,
    "regions": dict(
        _delete_=True,
        type="GeneratedRegions",
        generator=dict(type="FastSelectiveSearch"),
        select=[dict(type="TopK", k=30, ranking="uijlings")],
    ),
}
