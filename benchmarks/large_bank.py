"""Compare memory and time of InfoNCE with a large bank, forward and backward, in this library and in the plain form.

    python benchmarks/large_bank.py [--rows 12544] [--keys 65536] [--dim 128] [--device cpu] [--threads 1] [--out FILE]

The default is the dense term of DenseCL at batch 256: 256 x 49 cells against 65,536 keys. The plain form concatenates
all logits and computes their cross entropy. Its copies of the logits would need 10 GB here, so it runs with the number
of rows that fits into half of the free memory, or with ``--plain-rows``; ours then runs at that size as well.

Every row of the table is measured in a separate process. "Extra" is its peak memory beyond queries, keys and bank:
resident memory on the CPU (Linux), allocated memory on CUDA, exact to a few MB. Time is that of the best run.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

COPIES = 3  # of the logits that the plain form holds at its peak


def plain(q, k, bank, temperature: float):
    import torch
    import torch.nn.functional as F

    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ bank.T], 1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(q), dtype=torch.int64))


def ours(q, k, bank, temperature: float):
    from densessl.losses import info_nce

    return info_nce(q, k, bank, temperature=temperature).rows.mean()


class Peak:
    """Peak memory since construction, in bytes."""

    def __init__(self, device: str):
        self.device = device
        if device == "cpu":
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to the present
            self.before = self._resident("VmRSS")
        else:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()

    def growth(self) -> int:
        if self.device == "cpu":
            return self._resident("VmHWM") - self.before
        import torch

        return torch.cuda.max_memory_allocated() - self.before

    @staticmethod
    def _resident(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def measure(args: argparse.Namespace) -> dict:
    """Measure one variant in this process."""
    import torch

    from densessl.losses import contrast, unit

    torch.set_num_threads(args.threads)
    if args.block_mib:
        contrast.BLOCK_BYTES = int(args.block_mib * 2**20)
    torch.manual_seed(0)
    q, k, bank = (unit(torch.randn(n, args.dim, device=args.device)) for n in (args.rows, args.rows, args.keys))
    loss = {"plain": plain, "ours": ours}[args.variant]
    loss(q[:8].clone().requires_grad_(), k[:8], bank[:1024], 0.2).backward()  # loads the libraries
    peak, times = Peak(args.device), []
    for _ in range(args.repeats):
        q.grad = None
        start = time.perf_counter()
        value = loss(q.requires_grad_(), k, bank, 0.2)
        value.backward()
        value = value.item()  # waits for the device
        times.append(time.perf_counter() - start)
        extra = peak.growth()
    return dict(
        variant=args.variant, rows=args.rows, extra_mb=round(extra / 1e6, 1), seconds=min(times), loss=round(value, 6)
    )


def free_memory(device: str) -> int:
    if device == "cpu":
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    code = f"import torch; print(torch.cuda.mem_get_info({device!r})[0])"
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256 * 49)
    parser.add_argument("--keys", type=int, default=65536)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plain-rows", type=int, help="rows of the plain form; by default as many as fit")
    parser.add_argument("--block-mib", type=float, help="memory of one block of our logits; by default the library's")
    parser.add_argument("--out", help="json file for the results")
    parser.add_argument("--variant", choices=("plain", "ours"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args)))
        return
    fitting = args.plain_rows or min(args.rows, free_memory(args.device) // 2 // (4 * COPIES * args.keys))
    runs = [("ours", args.rows), *([("ours", fitting)] if fitting < args.rows else []), ("plain", fitting)]
    print(f"{args.device}, {args.threads} thread(s), {args.keys} keys of {args.dim} channels, forward and backward")
    if fitting < args.rows:
        print(f"the plain form runs with {fitting} of {args.rows} rows, and ours at that size too")
    print(f"{'variant':8s} {'rows':>8s} {'extra MB':>10s} {'seconds':>9s}")
    results = []
    for variant, rows in runs:
        # Of repeated options, argparse uses the last one.
        command = [sys.executable, __file__, *sys.argv[1:], "--variant", variant, "--rows", str(rows)]
        answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        results.append(answer)
        print(f"{variant:8s} {rows:8d} {answer['extra_mb']:10.1f} {answer['seconds']:9.3f}", flush=True)
    if args.out:
        settings = {key: value for key, value in vars(args).items() if key not in ("variant", "out")}
        Path(args.out).write_text(json.dumps(dict(settings=settings, results=results), indent=1) + "\n")


if __name__ == "__main__":
    main()
