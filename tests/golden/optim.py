"""Adaptors: optimisers and schedules."""

import torch

from densessl.engine.lars import LARS, lars_gradient, split_parameters
from densessl.engine.lr_hook import set_learning_rates
from densessl.schedules import (
    Horizon,
    build_schedule,
    cosine_momentum,
    fractional_total,
    warmup_cosine,
    warmup_multistep,
)


def lars(case):
    """Groups by hp_mode: 0 official exclusions, 1 everything scaled, 2 decayed but (no ``ignore`` key) never scaled.

    A parameter without an expected effective gradient at a step had no gradient there, and stays as it was.
    """
    holder = torch.nn.Module()
    for index in range(case.hp("num_params")):
        holder.register_parameter(f"p{index}", torch.nn.Parameter(case[f"p{index}_0"]))
    params = list(holder.parameters())
    mode, weight_decay = case.hp("mode"), case.hp("wd")
    if mode == 0:
        groups = split_parameters(holder, weight_decay)
    else:
        groups = [{"params": params, "weight_decay": weight_decay, "trust": mode == 1}]
    trust, eps = case.hp("trust_coef"), case.hp("eps")
    optimizer = LARS(groups, case.hp("lr"), case.hp("momentum"), trust_coefficient=trust, eps=eps)
    group_of = {param: group for group in optimizer.param_groups for param in group["params"]}
    for step in range(len(case["g0"])):
        before = [param.detach().clone() for param in params]
        for index, param in enumerate(params):
            param.grad = case[f"g{index}"][step].clone() if f"eff_g{index}_{step}" in case else None
            if param.grad is None:
                continue
            group = group_of[param]
            if group["trust"]:
                effective = lars_gradient(param, param.grad, group["weight_decay"], trust, eps)
            else:
                effective = param.grad + group["weight_decay"] * param
            case.value(f"eff_g{index}_{step}", effective)
        optimizer.step()
        for index, param in enumerate(params):
            assert param.grad is not None or torch.equal(param, before[index])
            for name, found in ((f"p{index}", param), (f"buf{index}", optimizer.state[param].get("momentum_buffer"))):
                if f"{name}_{step + 1}" in case:
                    case.value(f"{name}_{step + 1}", found)


def pixpro_lr(case):
    iterations = case.hp("iters_per_epoch")
    warmup = case.hp("warmup_epoch") * iterations
    options = {"base": case.hp("base_lr"), "warmup": warmup, "start_factor": 1 / case.hp("warmup_multiplier")}
    if case.hp("kind") == 0:
        total = case.hp("epochs") * iterations
        lrs = [warmup_cosine(i, total=total, final=case.hp("eta_min"), **options) for i in range(len(case["lr"]))]
    else:
        # The names of these settings vary; the values are those of PixPro's options where a file has none.
        epochs = _setting(case, ("decay_epoch", "milestone", "step_epoch"), [120, 160, 200])
        (rate,) = _setting(case, ("decay_rate", "gamma"), [0.1])
        milestones = [epoch * iterations for epoch in epochs]
        lrs = [warmup_multistep(i, milestones=milestones, gamma=rate, **options) for i in range(len(case["lr"]))]
    case.value("lr", torch.tensor(lrs, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def _setting(case, parts: tuple[str, ...], default: list) -> list:
    names = [name for name in case.arrays if any(part in name for part in parts)]
    return [value for name in sorted(names) for value in case[name].flatten().tolist()] or default


def pixpro_momentum(case):
    images, batch, momentum = case.hp("num_instances"), case.hp("batch_size"), case.hp("momentum")
    total = fractional_total(images, 1, batch, case.hp("epochs"))
    case.exact("K", total)
    case.exact("k0", fractional_total(images, 1, batch, case.hp("start_epoch") - 1))
    values = [cosine_momentum(k, total=total, base=momentum) for k in case["iteration"].tolist()]
    case.value("momentum", torch.tensor(values, dtype=torch.float64), rtol=0, atol=1e-12)


def byol_schedule(case):
    total, batch = case.hp("max_steps"), case.hp("batch_size")
    rate = {"total": total, "base": case.hp("base_lr") * batch / 256, "warmup": case.hp("warmup_steps")}
    steps = case["step"].tolist()
    taus = [cosine_momentum(step, total=total, base=case.hp("base_ema"), clamp=True) for step in steps]
    case.value("tau", torch.tensor(taus), rtol=1e-6, atol=0)
    case.value("lr", torch.tensor([warmup_cosine(step, start_factor=0.0, **rate) for step in steps]))


def simsiam_lr(case):
    """Encoder and predictor, the latter at a constant rate; an epoch of three steps has one learning rate."""
    base, epochs = case.hp("init_lr"), case.hp("epochs")
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(1, 1), "predictor": torch.nn.Linear(1, 1)})
    groups = split_parameters(model, exclude=(), constant_lr=("predictor",))
    schedule = build_schedule({"type": "warmup_cosine", "base": base, "by_epoch": True})
    horizon = Horizon(steps_per_epoch=3, epochs=epochs, total_steps=3 * epochs, num_images=0, global_batch=1)
    for offset in range(3):
        rates = []
        for epoch in range(len(case["lr"])):
            set_learning_rates(groups, schedule(3 * epoch + offset, horizon), base)
            rates.append([group["lr"] for group in groups])
        case.value("lr", torch.tensor(rates, dtype=torch.float64), rtol=1e-12, atol=1e-15)
