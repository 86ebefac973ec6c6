"""Mask R-CNN with ViTDet-B on COCO, 100 epochs of 1024x1024 pixels with large-scale jitter (Li et al., ECCV 2022, arXiv
2203.16527), as in the papers of MAE and SIM.

    python tools/export.py work_dirs/sim_vit_b/epoch_1600.pth vit_b.pth --to mmdet
    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/mask-rcnn_vitdet-b_100e.py --data-root coco \
        --init vit_b.pth --launcher pytorch

Windows of 14x14 cells except in the third, sixth, ninth and last block; a pyramid made from the last map only; two
convolutions in the RPN, four in the box head; layer norm in pyramid and heads. SIM's settings for COCO are not
released; its paper's comparison with MAE suggests these.

Batch 8 GPUs x 8 = 64, lr 1e-4, multiplied by 0.7 per layer from the head to the patch embedding; 184,375 steps = 100
epochs of 118k images. `model.backbone.with_cp=True` saves memory. Published: SIM, 1600 epochs, box AP 52.1, mask AP
46.2; MAE 51.6 / 45.9; MoCo v3 47.9 / 42.7.
"""

_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py", "mmdet::common/lsj-100e_coco-instance.py"]

custom_imports = dict(imports=["densessl.compat", "densessl.engine", "densessl.finetune"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

norm_cfg = dict(type="densessl.LN2d", eps=1e-6)
model = dict(
    # All images are padded to squares, in testing too, with the mean (grey) at the bottom and right.
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(
        _delete_=True,
        type="densessl.ViTDet",
        img_size=1024,
        patch_size=16,
        embed_dim=768,
        depth=12,
        num_heads=12,
        drop_path_rate=0.1,
        window_size=14,
        window_block_indexes=[0, 1, 3, 4, 6, 7, 9, 10],
        pretrain_img_size=224,
    ),
    neck=dict(_delete_=True, type="densessl.SimpleFPN", backbone_channel=768, norm_cfg=norm_cfg),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1024, 1024), keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
train_dataloader = dict(batch_size=8, num_workers=8)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    _delete_=True,
    type="densessl.DenseOptimWrapper",
    precision="auto",  # bf16 where the device has it; officially fp16
    constructor="densessl.LayerDecayConstructor",
    paramwise_cfg=dict(decay_rate=0.7),
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.1),
)
# 184,375 steps of 64 images are 100 epochs; the rate falls by 10 after 89 and 96 % of them.
train_cfg = dict(_delete_=True, type="IterBasedTrainLoop", max_iters=184375, val_interval=36875)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type="MultiStepLR", by_epoch=False, begin=0, end=184375, milestones=[163889, 177546], gamma=0.1),
]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=7375))
log_processor = dict(by_epoch=False)
