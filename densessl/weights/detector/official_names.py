"""Tensor names of official DETR checkpoints, and their names in MMDetection.

The official codes are those of DETR, UP-DETR, DETReg, Deformable DETR, Conditional DETR, DAB-DETR and DINO. The rules
of a table, (pattern, replacement), are applied in order to every name. Equal shapes hide two differences: Deformable
DETR and DINO number the norms of a decoder layer differently (norm1 follows cross-attention), and the official necks
have biases.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

Table = list[tuple[str, str]]

# Pretraining heads, and duplicates of other tensors.
DROPPED = re.compile(r"(feature_embed|patch2query|feature_align|transformer\.decoder\.(bbox|class)_embed)\.")
# Only pre-norm transformers have this tensor; MMDetection has no pre-norm layers.
PRE_NORM = "transformer.encoder.norm.weight"

COMMON: Table = [
    (r"^backbone\.0\.body\.", "backbone."),
    (r"^transformer\.", ""),
    (r"^(\w+\.layers\.\d+)\.linear1\.", r"\1.ffn.layers.0.0."),
    (r"^(\w+\.layers\.\d+)\.linear2\.", r"\1.ffn.layers.1."),
    (r"^(encoder\.layers\.\d+)\.norm1\.", r"\1.norms.0."),
    (r"^(encoder\.layers\.\d+)\.norm2\.", r"\1.norms.1."),
]
# Detectors with one feature level.
PLAIN: Table = [
    *COMMON,
    (r"^input_proj\.", "neck.convs.0.conv."),
    (r"^(encoder\.layers\.\d+\.self_attn)\.", r"\1.attn."),
    (r"^(decoder\.layers\.\d+)\.norm1\.", r"\1.norms.0."),
    (r"^(decoder\.layers\.\d+)\.norm2\.", r"\1.norms.1."),
    (r"^(decoder\.layers\.\d+)\.norm3\.", r"\1.norms.2."),
    (r"^(encoder|decoder)\.norm\.", r"\1.post_norm."),
    (r"^class_embed\.", "bbox_head.fc_cls."),
]
BOXES: Table = [
    (r"^bbox_embed\.layers\.0\.", "bbox_head.reg_ffn.layers.0.0."),
    (r"^bbox_embed\.layers\.1\.", "bbox_head.reg_ffn.layers.1."),
    (r"^bbox_embed\.layers\.2\.", "bbox_head.fc_reg."),
]
DETR: Table = [
    *PLAIN,
    *BOXES,
    (r"^(decoder\.layers\.\d+\.self_attn)\.", r"\1.attn."),
    (r"^(decoder\.layers\.\d+)\.multihead_attn\.", r"\1.cross_attn.attn."),
    (r"^query_embed\.", "query_embedding."),
]
ATTENTIONS: Table = [
    (r"^(decoder\.layers\.\d+)\.sa_", r"\1.self_attn."),
    (r"^(decoder\.layers\.\d+)\.ca_", r"\1.cross_attn."),
]
CONDITIONAL: Table = [*PLAIN, *BOXES, *ATTENTIONS, (r"^query_embed\.", "query_embedding.")]
DAB: Table = [
    *PLAIN,
    *ATTENTIONS,
    (r"^(\w+\.layers\.\d+)\.activation\.", r"\1.ffn.layers.0.1."),
    (r"^bbox_embed\.", "bbox_head.fc_reg."),
    (r"^refpoint_embed\.", "query_embedding."),
]
DEFORMABLE: Table = [
    *COMMON,
    (r"^input_proj\.([0-2])\.0\.", r"neck.convs.\1.conv."),
    (r"^input_proj\.([0-2])\.1\.", r"neck.convs.\1.gn."),
    (r"^input_proj\.3\.0\.", "neck.extra_convs.0.conv."),
    (r"^input_proj\.3\.1\.", "neck.extra_convs.0.gn."),
    (r"^(decoder\.layers\.\d+\.self_attn)\.", r"\1.attn."),
    (r"^(decoder\.layers\.\d+)\.norm1\.", r"\1.norms.1."),
    (r"^(decoder\.layers\.\d+)\.norm2\.", r"\1.norms.0."),
    (r"^(decoder\.layers\.\d+)\.norm3\.", r"\1.norms.2."),
    (r"^class_embed\.", "bbox_head.cls_branches."),
    (r"^bbox_embed\.(\d+)\.layers\.0\.", r"bbox_head.reg_branches.\1.0."),
    (r"^bbox_embed\.(\d+)\.layers\.1\.", r"bbox_head.reg_branches.\1.2."),
    (r"^bbox_embed\.(\d+)\.layers\.2\.", r"bbox_head.reg_branches.\1.4."),
    (r"^reference_points\.", "reference_points_fc."),
    (r"^enc_output\.", "memory_trans_fc."),
    (r"^enc_output_norm\.", "memory_trans_norm."),
    (r"^pos_trans\.", "pos_trans_fc."),
    (r"^query_embed\.", "query_embedding."),
]
# The heads of the encoder's proposals follow those of the decoder's layers.
DINO: Table = [
    (r"^transformer\.enc_out_class_embed\.", "class_embed.{layers}."),
    (r"^transformer\.enc_out_bbox_embed\.", "bbox_embed.{layers}."),
    (r"^transformer\.tgt_embed\.", "query_embed."),
    (r"^label_enc\.", "dn_query_generator.label_embedding."),
    *DEFORMABLE,
]


class Family(NamedTuple):
    """A form of official checkpoints.

    Attributes:
        mark: A name that this family has, and no later one.
        table: Renaming rules.
        config: MMDetection's config of the detector.
        options: Changes to that config, by dotted name.
    """

    mark: str
    table: Table
    config: str
    options: Mapping[str, Any] = {}


_BIAS = {"neck.bias": True}
FAMILIES = {
    "dino": Family(
        "transformer.tgt_embed.weight",
        DINO,
        "mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py",
        {"type": "densessl.DINO33", **_BIAS},
    ),
    "deformable-twostage": Family(
        "transformer.pos_trans.weight",
        DEFORMABLE,
        "mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
        _BIAS,
    ),
    "deformable-refine": Family(
        "transformer.decoder.bbox_embed.0.layers.0.weight",
        DEFORMABLE,
        "mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py",
        _BIAS,
    ),
    "deformable": Family(
        "transformer.level_embed", DEFORMABLE, "mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py", _BIAS
    ),
    "dab": Family("refpoint_embed.weight", DAB, "mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py"),
    "conditional": Family(
        "transformer.decoder.layers.0.sa_qcontent_proj.weight",
        CONDITIONAL,
        "mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
    ),
    # DETReg's DETR encodes the centres of cells. Once fine-tuned it has no mark, so its family must be given.
    "detreg-detr": Family(
        "feature_embed.layers.0.weight",
        DETR,
        "mmdet::detr/detr_r50_8xb2-150e_coco.py",
        {"positional_encoding.offset": -0.5},
    ),
    "detr": Family(
        "transformer.decoder.layers.0.multihead_attn.in_proj_weight", DETR, "mmdet::detr/detr_r50_8xb2-150e_coco.py"
    ),
}


def family_of(names: Iterable[str]) -> str | None:
    """Return the family of a checkpoint with these tensor names; None if it is unknown."""
    names = set(names)
    return next((name for name, family in FAMILIES.items() if family.mark in names), None)


def renamed(name: str, family: str, layers: int = 6) -> str | None:
    """Return MMDetection's name of an official tensor; None if MMDetection has no such tensor.

    Args:
        name: Name in the official file.
        family: One of ``FAMILIES``.
        layers: Number of decoder layers.
    """
    if DROPPED.match(name):
        return None
    for pattern, replacement in FAMILIES[family].table:
        name = re.sub(pattern, replacement.replace("{layers}", str(layers)), name)
    return name
