"""Adaptors: masks and schedules of SIM, by the official code (commit bbdec30)."""

import random

import numpy as np
import torch
from torch import nn

from densessl.branches.target import build_target
from densessl.data.masks import draw_blocks
from densessl.schedules import Horizon, build_schedule
from tests.golden.case import Case


class PythonRandom:
    """Python's generator, which the official masks are drawn from, behind the methods of numpy's that ours call."""

    def __init__(self, seed: int):
        self.generator = random.Random(seed)
        self.random = self.generator.random

    def integers(self, low: int, high: int, endpoint: bool) -> int:
        return self.generator.randint(low, high if endpoint else high - 1)

    def permutation(self, items: np.ndarray) -> np.ndarray:
        order = list(range(len(items)))
        self.generator.shuffle(order)
        return items[order]


def sim_mask(case: Case) -> None:
    """Cell by cell, with and without the cells that make up the count."""
    largest = int(case["max_num_patches"])
    options = dict(
        grid=tuple(case["input_size"].tolist()),
        hidden=int(case["num_masking_patches"]),
        min_block=int(case["min_num_patches"]),
        max_block=None if largest < 0 else largest,
        exactly=bool(case["fixed"]),
    )
    masks = np.stack([draw_blocks(PythonRandom(seed), **options) for seed in case["seeds"].tolist()])
    case.exact("masks", masks)


def sim_schedule(case: Case) -> None:
    """Steps are counted in micro-steps here: the official accumulation starts anew each epoch, with what it has."""
    steps, epochs, accumulation = (case[name].item() for name in ("steps_per_epoch", "epochs", "accum_iter"))
    horizon = Horizon(steps, epochs, epochs * steps, num_images=0, global_batch=1)
    base = case["base_mm"].item()
    momentum = dict(type="cosine_momentum", base=base) if case["cosine"] else dict(type="constant", value=base)
    rate = build_schedule(
        dict(
            type="warmup_cosine",
            base=case["base_lr"].item(),
            warmup_epochs=case["warmup_epochs"].item(),
            start_factor=0.0,
            final=case["min_lr"].item(),
        )
    )
    online = nn.Sequential(nn.Linear(1, 1))
    target = build_target(online, momentum=momentum)
    moved, momenta, rates = [], [], []
    for step in range(epochs * steps):
        first = step - step % steps % accumulation
        moved.append(target.before_forward(online, first, horizon))
        momenta.append(target.momentum)
        rates.append(rate(first, horizon))
    case.exact("update_mm", torch.tensor(moved))
    case.value("mm", torch.tensor(momenta, dtype=torch.float64), rtol=0, atol=1e-12)
    case.value("lr", torch.tensor(rates, dtype=torch.float64), rtol=0, atol=1e-12)
