"""LC-loss on BYOL, ResNet-50, 200 epochs of ImageNet (Islam et al., WACV 2023, arXiv 2207.04398).

    python tools/train.py configs/lcloss_r50.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/lcloss_r50.py --launcher pytorch --data-root imagenet/train/

Paper, after full fine-tuning: COCO detection 40.6 AP, VOC detection 60.1 AP, VOC segmentation 72.1 mIoU, Cityscapes
77.8 mIoU. Training time is not published.
Recipe: no code was released. From the paper: contrast of pixels in known geometric correspondence, on top of BYOL.
Reconstructed: 49 random points of the overlap, read from the last stage; projector and predictor; temperature;
candidates; the weight 0.1 (0.5 and 1 are worth trying); epochs, batch size and optimiser, which are those of
`byol_r50.py`. Other correspondences and candidates are settings: `correspondence=dict(type="OverlapGrid", size=7)`,
`candidates="cells"`.
"""

_base_ = "byol_r50.py"

model = dict(
    objectives=[
        dict(type="BYOL", hidden=4096, dim=256),
        dict(
            type="LCLoss",
            weight=0.1,
            hidden=2048,
            dim=256,
            predictor=True,
            temperature=0.2,
            candidates="points",
            correspondence=dict(type="RandomPoints", count=49),
        ),
    ],
)

# 32 GPUs x 128 images = 4096 images a step; 1.28 M images give 312 steps an epoch, 62,400 in all.
train_cfg = dict(max_epochs=200)
