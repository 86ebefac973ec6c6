"""Inspect what a pretrained network has learnt, by figures and pictures, most of which need no labels."""

from densessl.figures import between_image_cosine
from densessl.insight.matching import MatchingResult, dense_matching
from densessl.insight.spread import backbone_spread, between_image_similarity, channel_std, effective_rank, map_spread
from densessl.insight.stereo import StereoPair, motorcycle, relit

__all__ = [
    "MatchingResult",
    "StereoPair",
    "backbone_spread",
    "between_image_cosine",
    "between_image_similarity",
    "channel_std",
    "dense_matching",
    "effective_rank",
    "map_spread",
    "motorcycle",
    "relit",
]
