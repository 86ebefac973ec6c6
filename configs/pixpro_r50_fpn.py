"""PixPro through a feature pyramid and the convolutions of a RetinaNet's head, ResNet-50, 100 epochs of ImageNet.

    python tools/train.py configs/pixpro_r50_fpn.py --data-root photos/
    torchrun --nproc_per_node 8 tools/train.py configs/pixpro_r50_fpn.py --launcher pytorch --data-root imagenet/train/
    python tools/export.py work_dirs/pixpro_r50_fpn/epoch_100.pth r50_fpn.pth \
        --into mmdet::retinanet/retinanet_r50_fpn_1x_coco.py

A RECONSTRUCTION. The paper (Xie et al., CVPR 2021, arXiv 2011.10043: abstract, and "aligning pre-training to downstream
networks") says that pixel-level tasks can pretrain neck and head too; the released code does not. Reconstructed:
- the pyramid: that of MMDetection's RetinaNet, P3 to P5, 28x28, 14x14 and 7x7 cells of 224 pixels. P6 and P7 are
  left out: they would have 4x4 and 2x2 cells here, and start anew in the detector;
- the head: both towers of four shared 3x3 convolutions, without the prediction layers;
- the loss: the mean of one PixPro loss per tower and level, each with its own projector and propagation, and with
  distances in cell diagonals of its own grid;
- projectors with 1024 hidden channels: these maps have 256 channels; C5 has 2048, and the code's projector 4096.
Views, momentum, optimiser and schedule are those of `pixpro_r50.py`. No result is published for this recipe.
Activations for the backward pass in bf16 take 192 MiB per image, 24 GiB for 128 (`pixpro_r50.py`: 101 MiB);
38 MiB of that are similarities of P3's cells, 784 x 784 per image, in fp32.

Towers with group norm, as in ATSS, GFL, PAA and FCOS (try it with --into mmdet::atss/atss_r50_fpn_1x_coco.py):
    --set model.online.head.norm_cfg.type=GN model.online.head.norm_cfg.num_groups=32
"""

_base_ = "pixpro_r50.py"

model = dict(
    online=dict(
        backbone=dict(out_indices=(0, 1, 2, 3)),
        neck=dict(type="FPN", out_channels=256, start_level=1),
        head=dict(type="DenseHeadConvs", feat_channels=256, stacked_convs=4),
    ),
    objectives=[
        dict(type="PixPro", name=f"{tower}{level}", level=f"{tower}.{level}", weight=1 / 6, hidden=1024, dim=256)
        for tower in ("cls", "reg")
        for level in range(3)
    ],
)

# 8 GPUs x 128 images = 1024 images a step, as in `pixpro_r50.py`.
