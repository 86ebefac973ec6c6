"""Golden cases of Sinkhorn's assignment, by SwAV's official code."""

import torch

from densessl.losses import sinkhorn
from tests.golden.case import Case


def swav_sinkhorn(case: Case) -> None:
    """Both runs against the official float64 one. The official fp32 run is linear: it is off by 1e-5 itself, and not
    finite once exp(score / epsilon) overflows, where ours has to be."""
    scores, epsilon, iterations = case["scores"], case.hp("epsilon"), case.hp("iters")
    single = sinkhorn(scores, epsilon, iterations)
    assert single.dtype == torch.float32
    case.value("q_f64", sinkhorn(scores.double(), epsilon, iterations), rtol=1e-9, atol=1e-12)
    case.value("q_f64", single, rtol=1e-3)
    if torch.isfinite(case["q"]).all():
        case.value("q", single, rtol=1e-3)
