"""Golden cases of SimSiam, by the official code (commit a7bc177)."""

import torch

from densessl.model import TwoBranch
from tests.golden.case import Case
from tests.golden.encoder import batch_of, body, record

# Official names of layers, and ours.
LAYERS = {
    "encoder.body": "online.backbone.body",
    "encoder.fc.0": "online.projectors.simsiam_projector.linear0",
    "encoder.fc.1": "online.projectors.simsiam_projector.norm0",
    "encoder.fc.3": "online.projectors.simsiam_projector.linear1",
    "encoder.fc.4": "online.projectors.simsiam_projector.norm1",
    "encoder.fc.6": "online.projectors.simsiam_projector.linear2",
    "predictor.0": "objectives.simsiam.predictor.linear0",
    "predictor.1": "objectives.simsiam.predictor.norm0",
    "predictor.3": "objectives.simsiam.predictor.linear1",
}
RTOL = 1e-3  # batch norm of a handful of vectors amplifies rounding


def simsiam(case: Case) -> None:
    model = _model(case)
    projections = record(model.online.projectors["simsiam_projector"])
    predictions = record(model.objectives["simsiam"].predictor)
    optimizer = torch.optim.SGD(model.parameters(), case.hp("lr"), case.hp("momentum"), weight_decay=case.hp("wd"))
    for step, views in enumerate(case["x"]):
        loss = model.loss(batch_of(*views))["simsiam.loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.testing.assert_close(loss.double(), case["loss"][step], rtol=RTOL, atol=1e-5)
        if step == 0:
            for view in (0, 1):
                case.value(f"z{view + 1}", projections[view], RTOL)
                case.value(f"p{view + 1}", predictions[view], RTOL)
                case.grad(f"grad_p{view + 1}", predictions[view].grad)
            for name in case.group("g0/"):
                case.grad(f"g0/{name}", model.get_parameter(_renamed(name)).grad)
        optimizer.step()
        model.advance()
    for name in case.group("pT/"):
        case.value(f"pT/{name}", model.get_parameter(_renamed(name)), RTOL)


def _model(case: Case) -> TwoBranch:
    weights = case.group("p0/")
    dim, hidden = weights["encoder.fc.6.weight"].shape
    bottleneck = len(weights["predictor.0.weight"])
    objective = dict(type="SimSiam", hidden=hidden, dim=dim, bottleneck=bottleneck)
    model = TwoBranch(body(weights["encoder.body.weight"]), [objective], dict(kind="stop_gradient"))
    # The bias that is never trained, left out of ours because the norm behind it takes it away: all but its rounding.
    last = model.online.projectors["simsiam_projector"].linear2
    last.bias = torch.nn.Parameter(torch.zeros(dim), requires_grad=False)
    model.load_state_dict({_renamed(name): value for name, value in weights.items()}, strict=False)
    return model.train()


def _renamed(name: str) -> str:
    layer, _, parameter = name.rpartition(".")
    return f"{LAYERS[layer]}.{parameter}"
