"""Pair DETR (Iranmanesh et al., arXiv 2210.16476): a box is a pair of points that two decoders find.

It is a supervised detector. There is no released code, and the paper does not give its temperature, weight and
projector, so this is a reconstruction on MMDetection's Conditional DETR. It keeps the keys of Conditional DETR, so that
each loads the other's files, and adds ``decoder_tl.*`` and ``bbox_head.{tl_reg_ffn,tl_fc_reg,con_proj}.*``.
"""

import copy

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import ConditionalDETRHead
from mmdet.models.detectors import ConditionalDETR
from mmdet.models.layers import ConditionalDetrTransformerDecoder, inverse_sigmoid
from torch import Tensor, nn

from densessl.branches import MLP
from densessl.detectors.matches import RecordingAssigner
from densessl.losses import global_count, unit
from densessl.registry import MODELS


@MODELS.register_module()
class PairDETR(ConditionalDETR):
    """Conditional DETR with a second decoder on the same queries, which finds the top left corner of each object.

    Both decoders see the same memory and the same learnt queries; query i of both stands for the same object. The first
    decoder predicts classes and boxes. The second only adds losses in training, and does not run in evaluation.
    """

    def _init_layers(self) -> None:
        corner = copy.deepcopy(self.decoder)  # still the config, which super() replaces by the decoder
        super()._init_layers()
        self.decoder_tl = ConditionalDetrTransformerDecoder(**corner)

    def init_weights(self) -> None:
        super().init_weights()
        for parameter in self.decoder_tl.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward_decoder(
        self, query: Tensor, query_pos: Tensor, memory: Tensor, memory_mask: Tensor, memory_pos: Tensor
    ) -> dict[str, Tensor]:
        """As in Conditional DETR; in training also ``corner_states`` (layers, N, Q, C) and ``corner_references``
        (N, Q, 2) from the second decoder."""
        outputs = super().forward_decoder(query, query_pos, memory, memory_mask, memory_pos)
        if self.training:
            outputs["corner_states"], outputs["corner_references"] = self.decoder_tl(
                query=query, key=memory, query_pos=query_pos, key_pos=memory_pos, key_padding_mask=memory_mask
            )
        return outputs


@MODELS.register_module()
class PairDETRHead(ConditionalDETRHead):
    """Conditional DETR's head, plus the two coordinates of a corner and the association of the queries of both
    decoders.

    Objects are assigned once, by class and box; corners use the same assignment.

    Args:
        pair: settings of the association: ``weight`` of the loss of each decoder layer, softmax ``temperature``, and
            ``dim``, the width of the projection.
    """

    def __init__(self, *args, pair: dict | None = None, **kwargs):
        self.pair = dict(weight=1.0, temperature=0.1, dim=128) | (pair or {})
        super().__init__(*args, **kwargs)
        if self.train_cfg:
            self.assigner = RecordingAssigner(self.assigner)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.tl_reg_ffn = copy.deepcopy(self.reg_ffn)
        self.tl_fc_reg = nn.Linear(self.embed_dims, 2)
        self.con_proj = MLP(dims=(self.embed_dims, self.embed_dims, self.pair["dim"]))

    def loss(
        self,
        hidden_states: Tensor,
        references: Tensor,
        batch_data_samples: list,
        corner_states: Tensor | None = None,
        corner_references: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Losses of Conditional DETR and, if corners are given, ``loss_corner`` and ``loss_pair`` of every layer.

        Args:
            hidden_states, corner_states: (layers, N, Q, C) from the two decoders.
            references, corner_references: (N, Q, 2), relative.
            batch_data_samples: N samples with ``gt_instances`` in pixels.
        """
        self.assigner.matches.clear()
        losses = super().loss(hidden_states, references, batch_data_samples)
        if corner_states is None:
            return losses
        matches = self.assigner.take(len(hidden_states), len(batch_data_samples))
        for layer, (centre, corner, pairs) in enumerate(zip(hidden_states, corner_states, matches)):
            prefix = "" if layer == len(hidden_states) - 1 else f"d{layer}."
            points = self.corners(corner, corner_references)
            predicted = torch.cat([points[image, match.queries] for image, match in enumerate(pairs)])
            target = torch.cat([_top_left(sample)[match.targets] for sample, match in zip(batch_data_samples, pairs)])
            count = global_count(predicted.new_tensor(float(len(predicted)))).clamp(min=1)
            losses[f"{prefix}loss_corner"] = self.loss_bbox(predicted, target, avg_factor=count.item())
            association = pair_contrast(self.con_proj(centre), self.con_proj(corner), self.pair["temperature"])
            losses[f"{prefix}loss_pair"] = self.pair["weight"] * association
        return losses

    def corners(self, states: Tensor, references: Tensor) -> Tensor:
        """Top left corners (N, Q, 2) of queries (N, Q, C), relative to the image."""
        moved = self.tl_fc_reg(self.activate(self.tl_reg_ffn(states)))
        return (moved + inverse_sigmoid(references)).sigmoid()

    def predict(
        self,
        hidden_states: Tensor,
        references: Tensor,
        batch_data_samples: list,
        rescale: bool = True,
        corner_states: Tensor | None = None,
        corner_references: Tensor | None = None,
    ) -> list:
        """Predict boxes as in Conditional DETR, without the corners."""
        return super().predict(hidden_states, references, batch_data_samples, rescale)


def _top_left(sample) -> Tensor:
    """Top left corners (K, 2) of an image's objects, relative to its size."""
    height, width = sample.img_shape
    boxes = sample.gt_instances.bboxes
    return boxes[:, :2] / boxes.new_tensor([width, height])


def pair_contrast(centre: Tensor, corner: Tensor, temperature: float) -> Tensor:
    """Mean over images and 2Q anchors of ``-log softmax`` of the anchor's partner among the other 2Q - 1 vectors of the
    image (SimCLR's loss, Chen et al., 2020, equation 1).

    Args:
        centre, corner: vectors (N, Q, E) of the two decoders, of any length. Vectors of the same query are partners.
        temperature: softmax temperature.
    """
    with torch.autocast(centre.device.type, enabled=False):
        vectors = unit(torch.cat([centre, corner], 1), 2)
        similarity = vectors @ vectors.transpose(1, 2) / temperature
        diagonal = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
        similarity = similarity.masked_fill(diagonal, -torch.inf)
        partner = torch.arange(similarity.shape[1], device=similarity.device).roll(centre.shape[1])
        return F.cross_entropy(similarity.flatten(0, 1), partner.repeat(len(centre)))
