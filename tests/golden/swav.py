"""Golden cases of SwAV, by the official code (commit 06b1b7c)."""

from unittest import mock

import torch
from torch import Tensor, nn

import densessl.objectives.swav as swav_objective
from densessl.losses import sinkhorn, unit
from densessl.model import TwoBranch
from densessl.objectives.swav import SwAV, swapped_prediction
from densessl.registry import MODELS
from tests.golden.case import Case
from tests.golden.encoder import batch_of, record

NAMES = {
    "proj.weight": "online.projectors.swav_projector.linear0.weight",
    "proj.bias": "online.projectors.swav_projector.linear0.bias",
    "prototypes.weight": "objectives.swav.prototypes.weight",
}


@MODELS.register_module(force=True)
class GoldenIdentity(nn.Module):
    """Gives its input: the cases hold what a backbone would."""

    def __init__(self, channels: int):
        super().__init__()
        self.out_channels, self.out_strides = (channels,), (1,)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x,)


def swav_step(case: Case) -> None:
    model = _model(case)
    objective = model.objectives["swav"]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], case.hp("lr"))
    projected = record(model.online.projectors["swav_projector"])
    codes = _recorded_codes(objective)
    for step, crops in enumerate(case["x"]):
        queue = objective.queue
        full = queue is not None and queue.figures(queue.names[0])["queue_filled"] == 1
        assert full == bool(case["use_the_queue"][step])
        with mock.patch.object(swav_objective, "sinkhorn", wraps=sinkhorn) as solved:
            loss = model.loss(batch_of(*crops))["swav.loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.testing.assert_close(loss.double(), case["loss"][step], rtol=1e-4, atol=1e-5)
        vectors = unit(projected[-1]).detach()
        case.value(f"s{step}/output", vectors @ objective.prototypes.weight.T)
        by_slot = all(f"s{step}/q{slot}" in case for slot in range(len(objective.assign)))
        for slot, view in enumerate(objective.assign):
            name = slot if by_slot else view
            case.value(f"s{step}/q{name}", codes[-1][view])
            if f"s{step}/sinkhorn_rows{name}" in case:
                case.exact(f"s{step}/sinkhorn_rows{name}", len(solved.call_args_list[slot].args[0]))
        output_gradient = _output_gradient(case, step, objective, codes[-1], len(crops))
        _compare_gradients(case, step, model, output_gradient, vectors)
        if objective.queue is not None:
            banks = [_newest_first(objective.queue, name) for name in objective.queue.names]
            case.value(f"s{step}/queue", torch.stack(banks))
        optimizer.step()
        model.advance()
    for name in NAMES:
        case.value(f"pT/{name}", model.get_parameter(NAMES[name]))


def _model(case: Case) -> TwoBranch:
    weights = case.group("p0/")
    sizes = case["hp_nmb_crops"].tolist()
    count, dim = weights["prototypes.weight"].shape
    iterations = next((case.hp(name) for name in ("iters", "sinkhorn_iterations") if f"hp_{name}" in case), 3)
    objective = dict(
        type="SwAV",
        hidden=None,
        dim=dim,
        prototypes=count,
        temperature=case.hp("temperature"),
        epsilon=case.hp("epsilon"),
        iterations=iterations,
        views=[group.tolist() for group in torch.arange(sum(sizes)).split(sizes)],
        assign=case["hp_crops_for_assign"].tolist(),
        queue_length=case.hp("queue_length"),
        train_prototypes=dict(type="switch", before=False, after=True, at_step=case.hp("freeze_prototypes_niters")),
    )
    backbone = dict(type="GoldenIdentity", channels=case["x"].shape[-1])
    model = TwoBranch(dict(backbone=backbone), [objective], dict(kind="stop_gradient"))
    model.load_state_dict({NAMES[name]: value for name, value in weights.items()}, strict=False)
    return model.train()


def _recorded_codes(objective: SwAV) -> list[dict[int, Tensor]]:
    """The codes by view, to which calls to come will append."""
    found, method = [], objective.codes

    def codes(*args):
        found.append(method(*args))
        return found[-1]

    objective.codes = codes
    return found


def _compare_gradients(case: Case, step: int, model: TwoBranch, output_gradient: Tensor, vectors: Tensor) -> None:
    """Of a frozen step a file may hold the gradient of the prototypes from before it was dropped, which is then made
    of that of their outputs."""
    frozen = step < case.hp("freeze_prototypes_niters")
    assert frozen != bool(model.objectives["swav"].prototypes.weight.grad.any())
    for name, expected in case.group(f"s{step}/g_").items():
        gradient = model.get_parameter(NAMES[name]).grad
        if frozen and name == "prototypes.weight" and expected.any():
            gradient = output_gradient.T @ vectors
        case.grad(f"s{step}/g_{name}", gradient)


def _output_gradient(case: Case, step: int, objective: SwAV, codes: dict[int, Tensor], crops: int) -> Tensor:
    """Of the official outputs and our codes, compared with the file's."""
    output = case[f"s{step}/output"].requires_grad_()
    scores = dict(enumerate(output.chunk(crops)))
    swapped_prediction(scores, codes, objective.temperature).backward()
    case.grad(f"s{step}/grad_output", output.grad)
    return output.grad


def _newest_first(queue, name: str) -> Tensor:
    """A bank in the official order, the newest batch first, with zeros where nothing was written yet."""
    written = getattr(queue, f"written_{name}")
    order = written.argsort(descending=True, stable=True)
    return torch.where(written[order, None] >= 0, queue.keys(name)[order], 0)
