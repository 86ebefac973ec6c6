"""Golden cases of DenseCL, by the official code (commit b64bbb6)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest import mock

import torch
from torch import nn

import densessl.objectives.densecl as densecl_objective
import densessl.objectives.moco as moco_objective
from densessl.correspondence import FeatureArgmax, similarities
from densessl.losses import info_nce, unit
from densessl.model import TwoBranch
from densessl.registry import MODELS
from tests.golden.case import Case
from tests.golden.encoder import batch_of, queue_state, record

BRANCHES = {"q": "online", "k": "target"}
# Official names of layers, and ours.
LAYERS = {
    "mlp.0": "projectors.moco_head.linear0",
    "mlp.2": "projectors.moco_head.linear1",
    "mlp2.0": "projectors.densecl_head.linear0",
    "mlp2.2": "projectors.densecl_head.linear1",
}
QUEUES = {"queue": "moco", "queue2": "densecl"}


@MODELS.register_module(force=True)
class GoldenIdentity(nn.Module):
    """A backbone whose views are its maps."""

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels, self.out_strides = (channels,), (1,)

    def forward(self, x):
        return (x,)


def densecl(case: Case) -> None:
    model = _model(case)
    heads = {
        f"{short}_{name}": record(branch.projectors[f"{name}_head"])
        for short, branch in (("q", model.online), ("k", model.target.branch(model.online)))
        for name in ("moco", "densecl")
    }
    terms = {}  # before they are weighted
    for name, objective in model.objectives.items():
        objective.register_forward_hook(lambda module, inputs, output, name=name: terms.update({name: output}))
    lr = case.hp("lr") if "hp_lr" in case else 0.1
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr)
    for step, views in enumerate(zip(case["feat_q"].requires_grad_(), case["feat_k"])):
        batch = batch_of(*views)
        batch.views[0].retain_grad()
        with recorded_contrast() as contrasted:
            figures = model.loss(batch)
        total, _ = model.parse_losses(figures)
        optimizer.zero_grad()
        total.backward()
        torch.testing.assert_close(total.double(), case["loss_total"][step], rtol=1e-4, atol=1e-5)
        if step == 0:
            _compare_matches(case, *batch.views)
            _compare_heads(case, {name: outputs[0] for name, outputs in heads.items()})
            _compare_terms(case, figures, terms, contrasted)
            case.grad("grad_feat_q", batch.views[0].grad)
            for name in case.group("g0/"):
                case.grad(f"g0/{name}", model.get_parameter(_renamed(name)).grad)
            for name in case.group("p1/"):
                case.value(f"p1/{name}", model.get_parameter(_renamed(name)))
            _compare_queues(case, model, "after")
        optimizer.step()
        model.advance()
    _compare_queues(case, model, "final")
    case.informative("match_gap_min")


def _model(case: Case) -> TwoBranch:
    weights = case.group("p0/")
    share = case.hp("lambda")
    objectives = []
    for kind, weight, head, queue in (("MoCo", 1 - share, "mlp", "queue"), ("DenseCL", share, "mlp2", "queue2")):
        dim, length = case[f"{queue}_before"].shape
        hidden = len(weights[f"q.{head}.0.weight"])
        options = dict(hidden=hidden, dim=dim, length=length, temperature=case.hp("tau"))
        objectives.append(dict(type=kind, weight=weight, **options))
    backbone = dict(type="GoldenIdentity", channels=case["feat_q"].shape[2])
    model = TwoBranch(dict(backbone=backbone), objectives, dict(kind="ema", momentum=case.hp("momentum")))
    state = {_renamed(name): value for name, value in weights.items()}
    for official, ours in QUEUES.items():
        state |= queue_state(ours, case[f"{official}_before"], case[f"{official}_ptr_before"])
    model.load_state_dict(state, strict=False)
    return model.train()


def _compare_matches(case: Case, first: torch.Tensor, second: torch.Tensor) -> None:
    case.value("sim_matrix", similarities(first, second))
    pairs = FeatureArgmax()(first, second, None, None)
    numbers = torch.arange(second[0, 0].numel()).reshape(1, 1, *second.shape[2:]).expand(len(second), -1, -1, -1)
    case.exact("match_ind", pairs.second(numbers)[..., 0])
    assert pairs.valid.all()


def _compare_heads(case: Case, outputs: dict[str, torch.Tensor]) -> None:
    for short in "qk":
        dense = outputs[f"{short}_densecl"]
        case.value(f"{short}_raw", outputs[f"{short}_moco"])
        case.value(f"{short}_grid_raw", dense.flatten(2))
        case.value(f"{short}2_raw", dense.mean((2, 3)))
    case.value("k", unit(outputs["k_moco"]))
    case.value("k2", unit(outputs["k_densecl"].mean((2, 3))))
    case.grad("grad_q_raw", outputs["q_moco"].grad)
    case.grad("grad_q_grid_raw", outputs["q_densecl"].grad.flatten(2))


@contextmanager
def recorded_contrast() -> Iterator[dict[str, tuple[torch.Tensor, ...]]]:
    """Queries, positives and the bank, as it was then, that each objective hands to the contrastive loss."""
    seen = {}

    def contrast(name: str, queries, positives, bank, **options):
        seen[name] = queries.detach(), positives.detach(), bank.clone()
        return info_nce(queries, positives, bank, **options)

    with (
        mock.patch.object(densecl_objective, "info_nce", partial(contrast, "densecl")),
        mock.patch.object(moco_objective, "info_nce", partial(contrast, "moco")),
    ):
        yield seen


def _compare_terms(
    case: Case, figures: dict[str, torch.Tensor], terms: dict[str, dict], contrasted: dict[str, tuple]
) -> None:
    for official, ours, ending in (("single", "moco", ""), ("dense", "densecl", "_dense")):
        case.value(f"loss_{official}", figures[f"{ours}.loss"])
        case.value(f"loss_{official}_unweighted", terms[ours]["loss"])
        queries, positives, bank = contrasted[ours]
        case.value(f"l_pos{ending}", (queries * positives).sum(1, keepdim=True))
        case.value(f"l_neg{ending}", queries @ bank.T)
        positive, negative = case[f"l_pos{ending}"][:, 0], case[f"l_neg{ending}"]
        torch.testing.assert_close(terms[ours]["positive_cosine"], positive.mean(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(terms[ours]["top1"], (positive > negative.amax(1)).float().mean())


def _compare_queues(case: Case, model: TwoBranch, when: str) -> None:
    for official, ours in QUEUES.items():
        queue = model.objectives[ours].queue
        for name, value in ((official, queue.keys("keys").mT), (f"{official}_ptr", queue.state_keys[0])):
            if f"{name}_{when}" in case:  # not all cases have all of the last step's
                case.value(f"{name}_{when}", value)


def _renamed(name: str) -> str:
    branch, _, rest = name.partition(".")
    layer, _, parameter = rest.rpartition(".")
    return f"{BRANCHES[branch]}.{LAYERS[layer]}.{parameter}"
