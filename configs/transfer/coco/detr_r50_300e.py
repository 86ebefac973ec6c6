"""DETR, ResNet-50, 300 epochs of COCO: the fine-tuning of UP-DETR.

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/detr_r50_300e.py \
        --data-root coco --init detector.pth --launcher pytorch

`--init` takes the same files as in `detr_r50_150e.py`. Batch 8 GPUs x 2 = 16 (the default of the official script; the
paper's is not confirmed), AdamW, lr 1e-4, 5e-5 for the backbone, dropped at epoch 200. Published: UP-DETR 42.8 (its
released weights 43.1), SwAV's backbone 42.1; supervised, 500 epochs, 42.0.
"""

_base_ = "detr_r50_150e.py"

train_cfg = dict(max_epochs=300)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))))
param_scheduler = [dict(type="MultiStepLR", by_epoch=True, begin=0, end=300, milestones=[200], gamma=0.1)]
