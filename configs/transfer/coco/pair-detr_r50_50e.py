"""Pair DETR, ResNet-50, 50 epochs of COCO: a reconstruction (Iranmanesh et al., arXiv 2210.16476).

    torchrun --nproc_per_node 8 tools/train.py configs/transfer/coco/pair-detr_r50_50e.py \
        --data-root coco --init r50.pth \
        --launcher pytorch

A supervised detector: Conditional DETR with a second decoder for the top left corner, and a contrastive loss between
the outputs of the two decoders. The paper claims convergence 1.5 times as fast as Conditional DETR's. There is no
released code: temperature, weights, projector, and the contrast among all queries of an image at every layer are
reconstructed. Class and box are the first decoder's, so evaluation is Conditional DETR's. Schedule, losses and queries
are those of its config: batch 8 GPUs x 2 = 16, AdamW at 1e-4, a tenth of it for the backbone, dropped at epoch 40.

`load_from=detector.pth` loads a detector pretrained for Conditional DETR, and Conditional DETR loads a detector trained
here in the same way; it lacks only `decoder_tl` and the head's `tl_*` and `con_proj`.
"""

_base_ = "mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"

custom_imports = dict(imports=["densessl.compat", "densessl.detectors", "densessl.engine", "densessl.finetune"])
custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint=None)]

model = dict(
    type="densessl.PairDETR",
    backbone=dict(init_cfg=None),
    bbox_head=dict(type="densessl.PairDETRHead", pair=dict(weight=1.0, temperature=0.1, dim=128)),
)
