"""DETReg, small: Conditional DETR on C4 of a ResNet-18, at 192 pixels, fine-tuned by
`configs/transfer/voc/conditional-detr_r18_192_voc.py`.

    python tools/train.py configs/small/densecl_r18.py --data-root photos/ --work-dir r18
    python tools/regions.py build photos/ photo_regions --generator diverse --max-side 128 --per-image 0 \
        --generator-options scales=150,300,450 min_size=100
    python tools/train.py configs/small/detreg_conditional_detr_r18.py --data-root photos/ --regions photo_regions \
        --init r18/backbone.pth

Not a published recipe: fewer queries, layers and regions, half the pixels. 8 epochs of 1,000 photos are 1,000 steps: 20
to 25 minutes on one core, in bf16. Measured in docs/detectors.md.
"""

_base_ = "../_base_/detreg.py"

view = dict(
    short=(160, 168, 176, 184, 192, 200, 208, 216, 224),
    longest=320,
    crop_short=(200, 250, 300),
    crop_sides=(192, 300),
)
regions = dict(select=[dict(type="TopK", k=15, ranking="uijlings")])
model = dict(
    detector="{{ fileDirname }}/../transfer/voc/conditional-detr_r18_192_voc.py",
    pretext=dict(teacher=dict(depth=18, out_indices=(1,))),
)
# 1 process x 8 images.
train_dataloader = dict(batch_size=8, dataset=dict(patch=64))
train_cfg = dict(by_epoch=True, max_epochs=8)
optim_wrapper = dict(precision="auto", optimizer=dict(lr=4e-4))  # bf16 where the device has it
default_hooks = dict(lr=dict(schedule=dict(type="warmup_cosine", warmup_epochs=1)))
