"""RetinaNet, a ViT of 8 blocks and 192 channels: a fine-tuning run for a CPU of what `sim_vit_tiny.py` pretrains.

    python tools/export.py work_dirs/sim_vit_tiny/epoch_50.pth vit.pth --to mmdet
    CLASSES=raccoon python tools/train.py configs/transfer/voc/retinanet_vitdet_256_voc.py --data-root DIR \
        --init vit.pth

Data, steps, augmentation and head are those of `retinanet_r18_256_voc.py`. Against ViTDet: windows as large as the
views of the pretraining, in every second block; a pyramid from stride 8; the learning rate falls by 0.8 a layer.
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
