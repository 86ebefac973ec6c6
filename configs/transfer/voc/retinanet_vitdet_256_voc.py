"""RetinaNet, a ViT of 8 blocks and 192 channels: fine-tunes what `sim_vit_tiny.py` pretrains, on a CPU.

    python tools/export.py work_dirs/sim_vit_tiny/epoch_50.pth vit.pth --to mmdet
    CLASSES=raccoon python tools/train.py configs/transfer/voc/retinanet_vitdet_256_voc.py --data-root DIR \
        --init vit.pth

Data, steps, augmentation and head are those of `retinanet_r18_256_voc.py`. Differences from ViTDet: windows as large as
the pretraining views, in every second block; a pyramid from stride 8; a learning rate multiplied by 0.8 per layer.
"""

_base_ = "retinanet_r18_256_voc.py"

model = dict(
    backbone=dict(
        _delete_=True,
        type="densessl.ViTDet",
        img_size=384,
        patch_size=8,
        embed_dim=192,
        depth=8,
        num_heads=3,
        drop_path_rate=0.1,
        window_size=12,
        window_block_indexes=[0, 2, 4, 6],
        pretrain_img_size=96,
    ),
    # Strides 8, 16, 32, 64.
    neck=dict(
        _delete_=True, type="densessl.SimpleFPN", backbone_channel=192, out_channels=64, start_level=2, num_outs=4
    ),
    bbox_head=dict(anchor_generator=dict(strides=[8, 16, 32, 64])),
)
optim_wrapper = dict(constructor="densessl.LayerDecayConstructor", paramwise_cfg=dict(decay_rate=0.8))
