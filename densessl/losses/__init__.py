"""The losses of the objectives as pure functions of paired tensors, computed in at least fp32 even under autocast."""

from densessl.losses.contrast import NCE, bank_logsumexp, info_nce, matching_nce, multi_positive_nce
from densessl.losses.distill import centred_softmax, cross_view_entropy, sinkhorn, soft_cross_entropy
from densessl.losses.hinge import pairwise_hinge
from densessl.losses.instance import cosine_regression
from densessl.losses.pixel import pixel_consistency, pixel_contrast, pixel_propagation
from densessl.losses.pool import cell_cosines, masked_mean, sample_points, soft_regions
from densessl.losses.reduce import full_precision, global_count, unit, valid_mean
from densessl.losses.unigrad import UniGradTerms, correlation, gradient_terms, unigrad_terms

__all__ = [
    "NCE",
    "UniGradTerms",
    "bank_logsumexp",
    "cell_cosines",
    "centred_softmax",
    "correlation",
    "cosine_regression",
    "cross_view_entropy",
    "full_precision",
    "global_count",
    "gradient_terms",
    "info_nce",
    "masked_mean",
    "matching_nce",
    "multi_positive_nce",
    "pairwise_hinge",
    "pixel_consistency",
    "pixel_contrast",
    "pixel_propagation",
    "sample_points",
    "sinkhorn",
    "soft_cross_entropy",
    "soft_regions",
    "unigrad_terms",
    "unit",
    "valid_mean",
]
