"""DetCo, ResNet-50, 200 epochs of ImageNet (Xie et al., ICCV 2021, arXiv 2102.04803): the plain model, without
RandAugment ("DetCo-AA").

    python tools/train.py configs/detco_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/detco_r50.py --launcher pytorch --data-root imagenet/train/

Paper: VOC Faster R-CNN C4 57.8 AP (MoCo v2 57.0), COCO Mask R-CNN 1x 39.4 box / 34.4 mask AP with C4 and 39.5 / 35.9
with FPN, 68.6 linear top-1. Training time is not published; the patches add 73% to the pixels of MoCo v2.
Recipe: the pretraining code was never released. From the paper: the four stages, their heads and queues, the three
terms, the views, 256 images a step on 8 GPUs; everything else as in MoCo v2. Reconstructed: stage weights and the width
of the global heads (from a third-party port), the width of the local heads (our choice; an equally wide layer for nine
maps of 2048 channels would have 340 M weights), learning rate and schedule (MoCo v2's). Batch norm is synchronised
instead of shuffled; patches have statistics of their own.
"""

_base_ = "mocov2_r50.py"

# Two global views as in MoCo v2, then two that are cut into 3x3 patches. Each of the latter draws 27 numbers per sample:
# two offsets for each patch of 64 pixels within its cell of 85, and nine that put the patches in random order.
views = [
    *_base_.views,
    dict(_base_.views[0], size=255, scale=(0.6, 1.0), uniforms=dict(jigsaw=27)),
]

model = dict(
    online=dict(backbone=dict(out_indices=(0, 1, 2, 3))),
    objectives=[
        dict(
            type="DetCo",
            levels=(0, 1, 2, 3),
            weights=(0.1, 0.4, 0.7, 1.0),
            local_hidden=2048,
            dim=128,
            length=65536,  # length of each of the eight queues, 268 MB in all
            temperature=0.2,
            grid=3,
            tile=64,
        )
    ],
)
