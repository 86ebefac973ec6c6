"""Conditional DETR, ResNet-18, small: fine-tunes a whole detector on a CPU, on any data set in Pascal VOC's layout.

    CLASSES=raccoon python tools/train.py configs/transfer/voc/conditional-detr_r18_192_voc.py --data-root DIR \
        --init r18.pth

Data, metrics and the backbone's start are those of `retinanet_r18_256_voc.py`.
`configs/small/detreg_conditional_detr_r18.py` pretrains the whole detector; `densessl compare` compares starts.

Batch 8, one process, 342 steps for 150 photos: 5 to 6 minutes on one core, in bf16.
"""

_base_ = "retinanet_r18_256_voc.py"

attention = dict(embed_dims=256, num_heads=8)
ffn = dict(embed_dims=256, feedforward_channels=512)
model = dict(
    _delete_=True,
    type="ConditionalDETR",
    num_queries=50,
    data_preprocessor=dict(
        type="DetDataPreprocessor",
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=1,
    ),
    # C4, because C5 has few cells at this size. All norms are trained, so that a backbone from scratch has the same chance.
    backbone=dict(
        type="ResNet",
        depth=18,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(2,),
        frozen_stages=-1,
        norm_eval=False,
        style="pytorch",
        init_cfg=None,
    ),
    neck=dict(
        type="ChannelMapper",
        in_channels=[256],
        kernel_size=1,
        out_channels=256,
        act_cfg=None,
        norm_cfg=None,
        num_outs=1,
    ),
    encoder=dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg=dict(attention, dropout=0.0, batch_first=True), ffn_cfg=dict(ffn, ffn_drop=0.0)),
    ),
    decoder=dict(
        num_layers=3,
        layer_cfg=dict(
            self_attn_cfg=dict(attention, attn_drop=0.0, cross_attn=False),
            cross_attn_cfg=dict(attention, attn_drop=0.0, cross_attn=True),
            ffn_cfg=dict(ffn, ffn_drop=0.0),
        ),
        return_intermediate=True,
    ),
    positional_encoding=dict(num_feats=128, normalize=True),
    bbox_head=dict(
        type="ConditionalDETRHead",
        num_classes=len(_base_.classes),
        embed_dims=256,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type="L1Loss", loss_weight=5.0),
        loss_iou=dict(type="GIoULoss", loss_weight=2.0),
    ),
    train_cfg=dict(
        assigner=dict(
            type="HungarianAssigner",
            match_costs=[
                dict(type="FocalLossCost", weight=2.0),
                dict(type="BBoxL1Cost", weight=5.0, box_format="xywh"),
                dict(type="IoUCost", iou_mode="giou", weight=2.0),
            ],
        )
    ),
    test_cfg=dict(max_per_img=50),
)

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(scale=(288, 192))
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(288, 192))
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))

train_cfg = dict(max_epochs=18, val_interval=18)
optim_wrapper = dict(optimizer=dict(lr=4e-4, weight_decay=1e-4), clip_grad=dict(max_norm=0.1))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True, begin=0, end=18, T_max=18),
]
default_hooks = dict(checkpoint=dict(interval=18))
