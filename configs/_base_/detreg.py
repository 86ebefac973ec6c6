"""Shared by DETReg's configs: whole images with the regions of selective search, and the teacher's embeddings."""

_base_ = ["runtime.py", "whole_images.py"]

# Flip; resize the short side to one of ten lengths, in half of the cases after a crop.
view = dict(
    short=(320, 336, 352, 368, 400, 416, 432, 448, 464, 480),
    longest=600,
    crop_short=(400, 500, 600),
    crop_sides=(384, 600),
)
# Thirty regions per image, ranked anew in every epoch.
regions = dict(type="RegionStore", path="data/regions", select=[dict(type="TopK", k=30, ranking="uijlings")])

model = dict(pretext=dict(type="DETReg", teacher=dict(type="ResNet", depth=50, out_indices=(1,))))

# 8 GPUs x 24 images = 192 images a step; 1.28 M images give 6672 steps an epoch.
train_dataloader = dict(
    batch_size=24, dataset=dict(type="RegionImages", source="data/imagenet/train", patch=128, at_least=2)
)
# The same learning rate for any batch size. In the official commands, the drops come after the end of the run.
default_hooks = dict(lr=dict(schedule=dict(type="constant")))
demo = {
    "train_dataloader.batch_size": 2,
    "train_cfg.max_epochs": 1,
    "train_dataloader.dataset.limit": 6,
    "model.allow_random_backbone": True,
    "model.pretext.allow_random_teacher": True,
    "regions": dict(
        _delete_=True,
        type="GeneratedRegions",
        generator=dict(type="FastSelectiveSearch"),
        select=[dict(type="TopK", k=30, ranking="uijlings")],
    ),
}
