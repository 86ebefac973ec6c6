"""Measure the overhead of a training step: for each config, compare the time of a whole step with that of the bare
forward and backward passes of backbone, neck and heads.

    python benchmarks/step_share.py configs/*_r50.py --batch 32 --out step_share.json

The calls of modules in a real step are recorded: module, inputs, and whether it ran with gradients. They are then
replayed alone, all forward and then all backward passes. For objectives with a large bank, the two plain matrix
products of logits and gradient are added to the bare time. Augmentation (the preprocessor) is reported separately. The
optimiser, the target's update and all other work of an objective count as the rest.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from densessl.data.batch import Batch, collate_views
from densessl.data.demo import write_demo_photos
from densessl.losses import contrast
from densessl.model import TwoBranch
from densessl.registry import DATASETS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from densessl.run_settings import RunSettings
from densessl.runs import run_config
from densessl.schedules import Horizon


def build(config: str, batch: int, device: torch.device, folder: Path) -> tuple[TwoBranch, Batch, object]:
    """The model of a config, a raw batch of its views, and its optimiser wrapper."""
    cfg = run_config(RunSettings(config, work_dir=str(folder / "run")))
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device).train()
    model.begin(Horizon(steps_per_epoch=1000, epochs=100, total_steps=100_000, num_images=10**6, global_batch=batch))
    options = dict(cfg.train_dataloader.dataset, source=str(write_demo_photos(folder / "photos")))
    dataset = DATASETS.build(options)
    raw = collate_views([dataset[0, index % len(dataset)] for index in range(batch)])
    wrapper = OPTIM_WRAPPER_CONSTRUCTORS.build(
        dict(
            type=cfg.optim_wrapper.constructor,
            optim_wrapper_cfg={k: v for k, v in cfg.optim_wrapper.items() if k not in ("constructor", "paramwise_cfg")},
            paramwise_cfg=cfg.optim_wrapper.get("paramwise_cfg"),
        )
    )(model)
    return model, raw, wrapper


def bare_modules(model: TwoBranch) -> list[nn.Module]:
    """Backbone, neck and projectors of both branches, and the objectives' predictors."""
    branches = {id(b): b for b in (model.online, model.target.branch(model.online))}.values()
    found = [m for b in branches for m in (b.backbone, b.neck, *b.projectors.values()) if m is not None]
    children = [child for objective in model.objectives.values() for child in objective.children()]
    return found + [child for child in children if any(True for _ in child.parameters())]


def timed(functions: list[Callable[[], None]], device: torch.device, repeats: int) -> list[float]:
    """The least seconds per call of each function. They take turns, so that drifts in speed affect all alike."""
    seconds = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, spent in zip(functions, seconds):
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = time.perf_counter()
            function()
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent.append(time.perf_counter() - start)
    return [min(spent[1:]) for spent in seconds]  # without the first call, which warms up


def record(model: TwoBranch, wrapper, batch: Batch) -> tuple[list[tuple], list[tuple]]:
    """Record the calls of bare modules in a step, as (module, inputs, options, with gradient), and the (queries, bank)
    of large-bank losses."""
    calls, banks = [], []

    def remember(module: nn.Module, inputs: tuple, options: dict) -> None:
        calls.append((module, inputs, options, torch.is_grad_enabled()))

    hooks = [module.register_forward_pre_hook(remember, with_kwargs=True) for module in bare_modules(model)]
    plain = contrast.bank_logsumexp

    def bank_logsumexp(q: Tensor, bank: Tensor, *args):
        banks.append((q.shape, bank.shape))
        return plain(q, bank, *args)

    with wrapper.optim_context(model), mock.patch.object(contrast, "bank_logsumexp", bank_logsumexp):
        model.loss(batch)
    for hook in hooks:
        hook.remove()
    copies = [(module, tree_map_only(Tensor, copied, inputs), options, grad) for module, inputs, options, grad in calls]
    return copies, banks


def copied(tensor: Tensor) -> Tensor:
    """A copy of the tensor as a separate leaf, which requires a gradient if the tensor does."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def replay(calls: list[tuple], wrapper, model: TwoBranch) -> None:
    """Replay the recorded calls: forward passes in order, then backward passes of those with gradients, last first.

    As many activations are alive as in the step, because their memory costs time too.
    """
    done = []
    with wrapper.optim_context(model):
        for module, inputs, options, grad in calls:
            for item in tree_leaves(inputs):
                if isinstance(item, Tensor):
                    item.grad = None
            with torch.set_grad_enabled(grad):
                outputs = module(*inputs, **options)
            done.append([o for o in tree_leaves(outputs) if isinstance(o, Tensor) and o.requires_grad])
    while done:
        outputs = done.pop()
        if outputs:
            torch.autograd.backward(outputs, [torch.ones_like(o) for o in outputs])


def measure(config: str, batch: int, device: torch.device, repeats: int, folder: Path) -> dict:
    """The figures of one config."""
    model, raw, wrapper = build(config, batch, device, folder)
    (augment,) = timed([lambda: model.data_preprocessor(raw, True)], device, repeats)
    prepared = model.data_preprocessor(raw, True)

    def step() -> None:
        with wrapper.optim_context(model):
            losses = model(*prepared, mode="loss")
        wrapper.update_params(model.parse_losses(losses)[0])
        model.advance()

    calls, banks = record(model, wrapper, prepared)

    def bare() -> None:
        replay(calls, wrapper, model)
        wrapper.zero_grad()

    whole, modules = timed([step, bare], device, repeats)
    matmuls = 0.0
    for (rows, dim), (keys, _) in banks:
        q, bank = torch.randn(rows, dim, device=device), torch.randn(keys, dim, device=device)
        logits, gradient = q.new_empty(rows, keys), torch.empty_like(q)

        def products(q=q, bank=bank, logits=logits, gradient=gradient) -> None:
            torch.mm(q, bank.T, out=logits)
            torch.mm(logits, bank, out=gradient)

        matmuls += timed([products], device, repeats)[0]
    return dict(
        step=whole,
        modules=modules,
        bank_matmuls=matmuls,
        augmentation=augment,
        share=1 - (modules + matmuls) / whole,
        images_per_s=batch / (whole + augment),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work-dir", type=Path, default=Path("work_dirs/step_share"))
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = {}
    print("| config | step s | modules bare s | bank products s | rest | augmentation s |\n|---|---|---|---|---|---|")
    for config in args.configs:
        name = Path(config).stem
        found[name] = row = measure(config, args.batch, torch.device(args.device), args.repeats, args.work_dir)
        numbers = (f"{row[key]:.2f}" for key in ("step", "modules", "bank_matmuls"))
        print(f"| {name} | {' | '.join(numbers)} | {row['share']:.1%} | {row['augmentation']:.2f} |", flush=True)
        if args.out:
            args.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
