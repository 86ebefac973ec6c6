"""Golden cases of BYOL, by the official code in JAX (commit d8df415)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.engine.lars import LARS, split_parameters
from densessl.model import TwoBranch
from densessl.objectives.byol import BYOL, squared_distance
from densessl.schedules import Horizon, warmup_cosine
from tests.golden.case import Case
from tests.golden.encoder import batch_of, body

# Official names of modules and of their parameters, and ours in a branch.
MODULES = {
    "encoder/linear": "backbone.body",
    "projector/batch_norm": "projectors.byol_projector.0",
    "projector/linear": "projectors.byol_projector.1",
    "predictor/linear": "projectors.byol_predictor",
    "classifier": "projectors.byol_classifier",
}
PARAMETERS = {"w": "weight", "b": "bias", "scale": "weight", "offset": "bias"}


def byol_loss(case: Case) -> None:
    p1, p2, z1, z2 = (case[name].requires_grad_(name[0] == "p") for name in ("p1", "p2", "z1", "z2"))
    objective = BYOL(hidden=1, dim=1)
    objective.pairs = lambda maps: [(p1, z2), (p2, z1)]
    loss = objective(None, None, None)["loss"]
    loss.backward()
    case.value("pair12", squared_distance(p1, z2))
    case.value("pair21", squared_distance(p2, z1))
    case.value("repr_loss", loss)
    case.grad("grad_p1", p1.grad)
    case.grad("grad_p2", p2.grad)


class Affine(nn.Module):
    """x * weight + bias: what the cases have in the place of a batch norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class GoldenBYOL(BYOL):
    """BYOL with heads of one layer, and with a classifier on the features of the first view.

    The target has a classifier and a predictor too, moved but never used: so both are made heads of the branches.
    """

    def __init__(self, dim: int, classes: int):
        super().__init__(name="byol", dim=dim)
        self.classes = classes
        self.labels: Tensor | None = None
        self.predictor = nn.Linear(dim, dim)

    def projectors(self, channels):
        width = channels(self.level)
        return {
            "projector": nn.Sequential(Affine(width), nn.Linear(width, self.dim, bias=False)),
            "predictor": self.predictor,
            "classifier": nn.Linear(width, self.classes),
        }

    def forward(self, maps, batch, step):
        logits = maps["online"].apply("classifier", maps["online"].pooled(self.views[0]).detach())
        return {**super().forward(maps, batch, step), "loss_classifier": F.cross_entropy(logits, self.labels)}


def byol_update(case: Case) -> None:
    """The whole update: LARS without eps, then the target with the new parameters and this step's tau."""
    objective = GoldenBYOL(case["online0/projector/linear/w"].shape[1], case["online0/classifier/w"].shape[1])
    momentum = dict(type="cosine_momentum", base=case.hp("base_ema"), clamp=True)
    model = TwoBranch(
        body(case["online0/encoder/linear/w"].mT), [objective], dict(momentum=momentum, timing="after_step")
    )
    total_steps, warmup = case.hp("max_steps"), case.hp("warmup_steps")
    model.begin(Horizon(1, total_steps, total_steps, total_steps * case.hp("batch_size"), case.hp("batch_size")))
    model.train()
    names = {f"{branch}0/{name}": f"{branch}.{_renamed(name)}" for branch, name in _names(case)}
    model.load_state_dict({ours: _turned(name, case[name]) for name, ours in names.items()}, strict=False)
    groups = split_parameters(model, case.hp("weight_decay"))
    optimizer = LARS(groups, 0.0, case.hp("momentum"), trust_coefficient=case.hp("eta"), eps=0.0)
    base = case.hp("base_lr") * case.hp("batch_size") / 256
    for step, (views, labels) in enumerate(zip(case["views"], case["labels"])):
        objective.labels = labels
        figures = model.loss(batch_of(*views))
        total, _ = model.parse_losses(figures)
        optimizer.zero_grad()
        total.backward()
        lr = warmup_cosine(step, total=total_steps, base=base, warmup=warmup, start_factor=0.0)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        model.advance()
        logs = [total, figures["byol.loss"], figures["byol.loss_classifier"], model.target.momentum, lr]
        for value, expected in zip(logs, case["logs"][step]):
            torch.testing.assert_close(torch.as_tensor(value).detach().double(), expected, rtol=1e-4, atol=1e-5)
        state = model.state_dict()
        for branch, name in _names(case):
            ours = state[f"{branch}.{_renamed(name)}"]
            case.value(f"{branch}{step + 1}/{name}", _turned(name, ours))


def _names(case: Case) -> list[tuple[str, str]]:
    return [(branch, name) for branch in ("online", "target") for name in case.group(f"{branch}0/")]


def _renamed(name: str) -> str:
    module, _, parameter = name.rpartition("/")
    return f"{MODULES[module]}.{PARAMETERS[parameter]}"


def _turned(name: str, value: Tensor) -> Tensor:
    """Haiku's weights are (in, out)."""
    return value.mT if name.endswith("/w") else value
