"""Pair DETR (Iranmanesh et al., arXiv 2210.16476): a box is a pair of points that two decoders find.

A supervised detector. There is no released code, and the paper's temperature, weight and projector are not known: this
is a reconstruction on MMDetection's Conditional DETR, whose keys its own parts keep, so that the files of one load into
the other. New are ``decoder_tl.*`` and ``bbox_head.{tl_reg_ffn,tl_fc_reg,con_proj}.*``.
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
    """Conditional DETR whose queries are also read by a second decoder, which finds each object's top left corner.

    Both decoders see the same memory and the same learnt queries; query i of one and query i of the other are the same
    object. Classes and boxes are the first one's: the second is trained beside it and does not run in evaluation.
    """

    def _init_layers(self) -> None:
        corner = copy.deepcopy(self.decoder)  # its config, until the decoder takes its place
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
        """As of Conditional DETR; in training also ``corner_states`` (layers, N, Q, C) and ``corner_references``
        (N, Q, 2) of the second decoder."""
        found = super().forward_decoder(query, query_pos, memory, memory_mask, memory_pos)
        if self.training:
            found["corner_states"], found["corner_references"] = self.decoder_tl(
                query=query, key=memory, query_pos=query_pos, key_pos=memory_pos, key_padding_mask=memory_mask
            )
        return found


@MODELS.register_module()
class PairDETRHead(ConditionalDETRHead):
    """Conditional DETR's head, two coordinates of a corner, and the association of the two decoders' queries.

    Objects are assigned once, by class and box; the corner has the same assignment.

    Args:
        pair: ``weight`` of the association, its ``temperature`` and ``dim``, width of its projection. The weight is of
            each decoder layer.
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
        """Losses of Conditional DETR, and ``loss_corner`` and ``loss_pair`` of every layer where corners are given.

        Args:
            hidden_states, corner_states: (layers, N, Q, C) of the two decoders.
            references, corner_references: (N, Q, 2), relative.
            batch_data_samples: N, with ``gt_instances`` in pixels.
        """
        self.assigner.matches.clear()
        losses = super().loss(hidden_states, references, batch_data_samples)
        if corner_states is None:
            return losses
        matches = self.assigner.take(len(hidden_states), len(batch_data_samples))
        for layer, (centre, corner, own) in enumerate(zip(hidden_states, corner_states, matches)):
            prefix = "" if layer == len(hidden_states) - 1 else f"d{layer}."
            points = self.corners(corner, corner_references)
            found = torch.cat([points[image, match.queries] for image, match in enumerate(own)])
            wanted = torch.cat([_top_left(sample)[match.targets] for sample, match in zip(batch_data_samples, own)])
            count = global_count(found.new_tensor(float(len(found)))).clamp(min=1)
            losses[f"{prefix}loss_corner"] = self.loss_bbox(found, wanted, avg_factor=count.item())
            association = pair_contrast(self.con_proj(centre), self.con_proj(corner), self.pair["temperature"])
            losses[f"{prefix}loss_pair"] = self.pair["weight"] * association
        return losses

    def corners(self, states: Tensor, references: Tensor) -> Tensor:
        """Top left corners (N, Q, 2), relative, of queries (N, Q, C)."""
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
        """As of Conditional DETR: the corners are not used."""
        return super().predict(hidden_states, references, batch_data_samples, rescale)


def _top_left(sample) -> Tensor:
    """Corners (K, 2) of an image's objects, relative to its size."""
    height, width = sample.img_shape
    boxes = sample.gt_instances.bboxes
    return boxes[:, :2] / boxes.new_tensor([width, height])


def pair_contrast(centre: Tensor, corner: Tensor, temperature: float) -> Tensor:
    """Mean over images and 2Q anchors of ``-log softmax`` of an anchor's partner among the image's 2Q - 1 other vectors
    (SimCLR's loss, Chen et al., 2020, equation 1).

    Args:
        centre, corner: (N, Q, E) of the two decoders, any lengths; query i of one and of the other are partners.
    """
    with torch.autocast(centre.device.type, enabled=False):
        vectors = unit(torch.cat([centre, corner], 1), 2)
        similarity = vectors @ vectors.transpose(1, 2) / temperature
        own = torch.eye(similarity.shape[1], dtype=torch.bool, device=similarity.device)
        similarity = similarity.masked_fill(own, -torch.inf)
        partner = torch.arange(similarity.shape[1], device=similarity.device).roll(centre.shape[1])
        return F.cross_entropy(similarity.flatten(0, 1), partner.repeat(len(centre)))
