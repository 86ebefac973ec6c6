"""Compare the mmcv operators of densessl.compat on CUDA with float64 on CPU, values and gradients.

    python tools/check_compat_cuda.py --out compat_cuda.json

The exit code is 0 if all agree, 1 if some do not, and 2 if there is no CUDA device. If a compiled mmcv is installed,
its operators are checked instead.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import densessl  # noqa: F401  (installs the operators before mmcv asks for them)

# Allowed error relative to the greatest reference value: accumulation in float32, then one rounding to the dtype.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-3, torch.bfloat16: 8e-3}
Case = tuple[Callable[..., Tensor], Sequence[Tensor], int]  # function, its inputs, how many of them have gradients


def cases() -> dict[str, Case]:
    """The operators by name, each with float64 CPU inputs; those with gradients come first."""
    from mmcv import ops

    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        return torch.empty(shape, dtype=torch.float64).uniform_(low, high, generator=generator)

    maps = uniform(2, 16, 25, 38)
    corner = uniform(60, 2, low=-5, high=90)
    boxes = torch.cat([corner, corner + uniform(60, 2, low=1, high=80)], dim=1)
    rois = torch.cat([torch.arange(60)[:, None] % 2, boxes], dim=1)
    scores = torch.randperm(60, generator=generator).double() / 64  # distinct in bf16 too
    target = torch.randint(0, 7, (50,), generator=generator)
    shapes, starts = torch.tensor([[16, 20], [8, 10]]), torch.tensor([0, 320])
    # Not at whole pixels, where a bilinear sample has no derivative.
    offset = uniform(2, 36, 25, 38, low=-3, high=3).round() + uniform(2, 36, 25, 38, low=0.2, high=0.8)
    weight, mask = uniform(24, 8, 3, 3), uniform(2, 18, 25, 38, low=0.0)
    geometry = (1, 1, 1, 2, 2)  # stride, padding, dilation, groups, deformable groups
    attend = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply

    table: dict[str, Case] = {
        f"nms offset={offset}": (lambda b, s, offset=offset: ops.nms(b, s, 0.5, offset=offset)[1], (boxes, scores), 0)
        for offset in (0, 1)
    }
    for method in ("naive", "linear", "gaussian"):
        table[f"soft_nms {method}"] = (
            lambda b, s, method=method: ops.soft_nms(b, s, method=method)[0],
            (boxes, scores),
            0,
        )
    for mode in ("avg", "max"):
        for aligned in (True, False):
            table[f"roi_align {mode} aligned={aligned}"] = (
                lambda x, r, mode=mode, aligned=aligned: ops.roi_align(x, r, 7, 0.25, 0, mode, aligned),
                (maps, rois),
                1,
            )
    table |= {
        "roi_pool": (lambda x, r: ops.roi_pool(x, r, 7, 0.25), (maps, rois), 1),
        "sigmoid_focal_loss": (
            lambda x, t: ops.sigmoid_focal_loss(x, t, 2.0, 0.25, None, "none"),
            (uniform(50, 6, low=-8, high=8), target),
            1,
        ),
        "deform_conv2d": (lambda x, o, w: ops.deform_conv2d(x, o, w, *geometry), (maps, offset, weight), 3),
        "modulated_deform_conv2d": (
            lambda x, o, m, w, b: ops.modulated_deform_conv2d(x, o, m, w, b, *geometry),
            (maps, offset, mask, weight, uniform(24)),
            5,
        ),
        "ms_deform_attn": (
            lambda v, p, a, s, t: attend(v, s, t, p, a, 64),
            (
                uniform(2, 400, 4, 8),
                uniform(2, 30, 4, 2, 4, 2, low=-0.1, high=1.1),
                uniform(2, 30, 4, 2, 4),
                shapes,
                starts,
            ),
            3,
        ),
    }
    return table


def evaluate(case: Case, inputs: Sequence[Tensor], autocast: torch.dtype | None = None) -> list[Tensor]:
    """Output of a case and the gradients of a weighted sum of it, all on the CPU in float64."""
    function, _, differentiable = case
    inputs = [tensor.clone().requires_grad_(index < differentiable) for index, tensor in enumerate(inputs)]
    with torch.autocast(inputs[0].device.type, dtype=autocast, enabled=autocast is not None):
        output = function(*inputs)
    results = [output]
    if differentiable:
        slope = (torch.arange(output.numel(), device=output.device) % 7 - 3).view(output.shape)  # exact in any dtype
        results += torch.autograd.grad(output, inputs[:differentiable], slope.to(output.dtype))
    return [result.detach().cpu().double() for result in results]


def check(name: str, case: Case, dtype: torch.dtype) -> dict:
    """The largest error of one case in one dtype, or the message of its failure. Half precision runs under autocast."""
    rounded = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in case[1]]
    reference = evaluate(case, [tensor.double() if tensor.is_floating_point() else tensor for tensor in rounded])
    half = dtype in (torch.float16, torch.bfloat16)
    row = {"operator": name, "dtype": str(dtype).removeprefix("torch."), "error": None, "agrees": False}
    try:
        results = evaluate(case, [tensor.cuda() for tensor in rounded], dtype if half else None)
        pairs = list(zip(results, reference))
        if any(result.shape != wanted.shape for result, wanted in pairs):
            return row | {"message": f"shapes {[tuple(result.shape) for result in results]}"}
        errors = [
            float((result - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)) for result, wanted in pairs
        ]
    except Exception as error:
        return row | {"message": f"{type(error).__name__}: {error}"}
    # Compared one by one, so that a NaN fails.
    return row | {"error": max(errors), "agrees": all(error <= TOLERANCES[dtype] for error in errors)}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", help="write the table as JSON to this file")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print(f"There is no CUDA device for torch {torch.__version__}: nothing was compared.", file=sys.stderr)
        return 2
    rows = [check(name, case, dtype) for name, case in cases().items() for dtype in TOLERANCES]
    for row in rows:
        outcome = row.get("message") or f"{row['error']:.1e}"
        print(f"{'ok  ' if row['agrees'] else 'FAIL'} {row['operator']:28} {row['dtype']:9} {outcome}")
    if args.out:
        report = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
        with open(args.out, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=2)
    return 0 if all(row["agrees"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
