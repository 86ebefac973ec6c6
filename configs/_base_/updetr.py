"""Shared by UP-DETR's configs: whole images, and ten patches of each to detect in it."""

_base_ = ["runtime.py", "whole_images.py"]

# No flips and no crops: the released code dropped both.
view = dict(short=(320, 336, 352, 368, 400, 416, 432, 448, 464, 480), longest=600, hflip=0.0, crop=0.0)
regions = dict(type="GeneratedRegions", generator=dict(type="RandomPatches", count=10))

model = dict(pretext=dict(type="UPDETR"))

# 8 GPUs x 32 images = 256 images a step; 1.28 M images give 5004 steps an epoch. All patches of an image count, however
# small they are in the view.
train_dataloader = dict(
    batch_size=32,
    dataset=dict(type="RegionImages", source="data/imagenet/train", patch=128, at_least=10, min_side=0.0),
)
train_cfg = dict(by_epoch=True, max_epochs=60)
# The same learning rate for any batch size.
default_hooks = dict(lr=dict(schedule=dict(type="warmup_multistep", milestones=(40,))))
demo = {
    "train_dataloader.batch_size": 2,
    "train_cfg.max_epochs": 1,
    "train_dataloader.dataset.limit": 6,
    "model.allow_random_backbone": True,
}
