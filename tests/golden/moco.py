"""Golden cases of MoCo v1 and v2, by the official code (commit 5670021)."""

import torch

from densessl.losses import unit
from densessl.model import TwoBranch
from tests.golden.case import Case
from tests.golden.encoder import batch_of, body, queue_state, record

BRANCHES = {"encoder_q": "online", "encoder_k": "target"}
# Official names of layers, and ours: v1's head is one layer.
LAYERS = {
    "body": "backbone.body",
    "fc": "projectors.moco_head.linear0",
    "fc.0": "projectors.moco_head.linear0",
    "fc.2": "projectors.moco_head.linear1",
}


def moco(case: Case) -> None:
    weights = case.group("p0/")
    hidden = len(weights["encoder_q.fc.0.weight"]) if "encoder_q.fc.0.weight" in weights else None
    dim, length = case["queue_before"].shape
    objective = dict(type="MoCo", hidden=hidden, dim=dim, length=length, temperature=case.hp("T"))
    model = TwoBranch(body(weights["encoder_q.body.weight"]), [objective], dict(kind="ema", momentum=case.hp("m")))
    state = {_renamed(name): value for name, value in weights.items()}
    queue = queue_state("moco", case["queue_before"], case["queue_ptr_before"])
    model.load_state_dict(state | queue, strict=False)
    model.train()
    queries, keys = (
        record(branch.projectors["moco_head"]) for branch in (model.online, model.target.branch(model.online))
    )
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], case.hp("lr"))
    for step, views in enumerate(zip(case["x_q"], case["x_k"])):
        figures = model.loss(batch_of(*views))
        optimizer.zero_grad()
        figures["moco.loss"].backward()
        torch.testing.assert_close(figures["moco.loss"].double(), case["loss"][step], rtol=1e-4, atol=1e-5)
        if step == 0:
            case.value("q_raw", queries[0])
            case.grad("grad_q_raw", queries[0].grad)
            case.value("k", unit(keys[0]))
            logits = case["logits"]
            torch.testing.assert_close(figures["moco.positive_cosine"], logits[:, 0].mean() * case.hp("T"))
            torch.testing.assert_close(figures["moco.top1"], (logits.argmax(1) == 0).float().mean())
            for name in case.group("g0/"):
                case.grad(f"g0/{name}", model.get_parameter(_renamed(name)).grad)
            for name in case.group("p1/"):
                case.value(f"p1/{name}", model.get_parameter(_renamed(name)))
            _compare_queue(case, model, "after1")
        optimizer.step()
        model.advance()
    _compare_queue(case, model, "final")


def _compare_queue(case: Case, model: TwoBranch, when: str) -> None:
    queue = model.objectives["moco"].queue
    case.value(f"queue_{when}", queue.keys("keys").mT)
    case.exact(f"queue_ptr_{when}", queue.state_keys[0])


def _renamed(name: str) -> str:
    branch, _, rest = name.partition(".")
    layer, _, parameter = rest.rpartition(".")
    return f"{BRANCHES[branch]}.{LAYERS[layer]}.{parameter}"
