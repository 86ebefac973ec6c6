"""Golden cases of UniGrad, by the official code (commit ede8e68)."""

import torch
import torch.distributed as dist
from torch import Tensor

from densessl.losses import correlation, gradient_terms
from densessl.objectives.unigrad import UniGrad
from densessl.schedules import Horizon, build_schedule
from tests.distributed import run_group
from tests.golden.case import Case


class Given:
    """Stands in for a branch: projections are given vectors, of view 0 and view 1."""

    def __init__(self, *vectors: Tensor):
        self.vectors = vectors

    def project(self, name, view, level, pool):
        return self.vectors[view]


def run_steps(z1: Tensor, z2: Tensor, z1m: Tensor, z2m: Tensor, weight: float, momentum: float) -> dict[str, Tensor]:
    """Consecutive steps of one rank on its part of the arrays (step, rank, N, D)."""
    rank = dist.get_rank() if dist.is_initialized() else 0
    objective = UniGrad(hidden=1, dim=z1.shape[-1], negative_weight=weight, momentum=momentum)
    found = []
    for raw in zip(z1[:, rank], z2[:, rank], z1m[:, rank], z2m[:, rank]):
        first, second, first_target, second_target = (item.clone().requires_grad_() for item in raw)
        maps = {"online": Given(first, second), "target": Given(first_target.detach(), second_target.detach())}
        figures = objective(maps, None, None)
        figures["loss"].backward()
        found.append(
            {
                "loss": figures["loss"].detach(),
                "pos_sim": figures["positive_cosine"],
                "F": objective.correlation.value.clone(),
                "grad_z1_raw": first.grad,
                "grad_z2_raw": second.grad,
                "grad_z1_normed": normed_gradient(first.detach(), second_target.detach(), objective),
                "grad_z2_normed": normed_gradient(second.detach(), first_target.detach(), objective),
            }
        )
    return {name: torch.stack([item[name] for item in found]) for name in found[0]}


def normed_gradient(z: Tensor, target: Tensor, objective: UniGrad) -> Tensor:
    """Gradient of the loss for the unit vector of z."""
    z, target = (torch.nn.functional.normalize(item) for item in (z, target))
    return half_gradient(z, target, objective.correlation.value, objective.negative_weight)[1] / 2


def half_gradient(z: Tensor, target: Tensor, matrix: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """The loss of one direction and its gradient for z, of vectors (M, D) as they are."""
    z = z.clone().requires_grad_()
    positive, negative = gradient_terms(z, target, matrix)
    loss = (positive + weight * negative).mean()
    return loss.detach(), torch.autograd.grad(loss, z)[0]


def unigrad_of(prediction: Tensor, target: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """UniGrad's loss, and its gradient for the prediction, where both views have these vectors (M, D) and no step came
    before."""
    return half_gradient(prediction, target, correlation(target), weight)


def unigrad_loss(case: Case) -> None:
    arrays = [case[name] for name in ("z1", "z2", "z1m", "z2m")]
    arguments = (*arrays, case["lambd"].item(), case["rho"].item())
    ranks = arrays[0].shape[1]
    parts = run_group(ranks, run_steps, *arguments) if ranks > 1 else [run_steps(*arguments)]
    for part in parts:
        case.value("F", part.pop("F"), rtol=1e-5)
    for name in parts[0]:
        case.value(name, torch.stack([part[name] for part in parts], 1), rtol=1e-5)


unigrad_loss_world2 = unigrad_loss


def unigrad_schedule(case: Case) -> None:
    epochs, steps_per_epoch = case["epochs"].item(), case["steps_per_epoch"].item()
    batch, total = case["whole_batch_size"].item(), epochs * steps_per_epoch
    horizon = Horizon(steps_per_epoch, epochs, total, total * batch, batch)
    base = case["base_lr"].item() * batch / 256
    rate = build_schedule(
        dict(
            type="warmup_cosine",
            base=base,
            warmup_epochs=case["warmup_epochs"].item(),
            start_factor=1e-3,
            final=1e-3 * base,
            stretched=True,
        )
    )
    momentum = build_schedule(dict(type="cosine_momentum", base=case["base_momentum"].item()))
    for name, schedule in (("lr", rate), ("mm", momentum)):
        values = [schedule(step, horizon) for step in case["step"].tolist()]
        case.value(name, torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-12)
