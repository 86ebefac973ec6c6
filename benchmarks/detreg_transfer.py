"""What the pretraining of a whole detector is worth: AP of the same detector, fine-tuned from three starts.

    python benchmarks/detreg_transfer.py work_dirs/x/detector.py --backbone r18/backbone.pth --data-root raccoon_voc \
        --classes raccoon --out transfer

    random     nothing is loaded
    backbone   the backbone that the pretraining was started from; the transformer is random
    detector   the pretrained detector, as it was exported

DETECTOR.py is what `tools/export.py --to mmdet-detector` wrote, for a detector whose config fine-tunes on this data
(`configs/transfer/voc/conditional-detr_r18_192_voc.py`). Schedule, seeds and all else are the same for the three: they
differ in the hook that loads. Runs go one after another, seed by seed; a stopped command goes on when it is repeated,
and does no finished run twice. `OUT/results.json` has every run, and the table is printed after each.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
STARTS = ("random", "backbone", "detector")
METRICS = {"AP": "coco/bbox_mAP", "AP50": "coco/bbox_mAP_50"}


def config_text(start: str, detector: Path, backbone: Path) -> str:
    """The exported config with another hook to load by, or with none."""
    hooks = {
        "random": [],
        "backbone": [dict(type="densessl.LoadBackboneHook", checkpoint=str(backbone))],
        "detector": [dict(type="densessl.LoadDetectorHook", checkpoint=str(detector.with_suffix(".pth")))],
    }[start]
    return f'_base_ = "{detector}"\n\ncustom_hooks = {hooks!r}\n'


def last_metrics(work_dir: Path) -> dict[str, float]:
    """The last validation in the logs of a run, of METRICS in percent.

    Raises:
        ValueError: none was logged.
    """
    logs = sorted(work_dir.glob("*/vis_data/*.json"), key=lambda path: path.stat().st_mtime)
    found = {}
    for log in logs:
        for line in log.read_text().splitlines():
            values = json.loads(line)
            found = {name: 100 * values[key] for name, key in METRICS.items() if key in values} or found
    if found.keys() != METRICS.keys():
        raise ValueError(f"{work_dir} has no validation with {list(METRICS.values())} in its logs")
    return found


def table(runs: Sequence[Mapping]) -> str:
    """Mean and standard deviation over seeds, a row a start."""
    first = next(iter(METRICS))
    head = f"{'start':10}" + "".join(f"{name:>16}" for name in METRICS) + f"{'minutes':>10}   {first} of seeds"
    rows = [head]
    for start in STARTS:
        own = [run for run in runs if run["start"] == start]
        if not own:
            continue
        cells = []
        for name in METRICS:
            values = [run[name] for run in own]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):8.1f} +- {spread:4.1f}")
        minutes = max(run["seconds"] for run in own) / 60
        seeds = " ".join(f"{run['seed']}: {run[first]:.1f}" for run in own)
        rows.append(f"{start:10}{''.join(cells)}{minutes:10.1f}   {seeds}")
    return "\n".join(rows)


def fine_tune(start: str, seed: int, args: argparse.Namespace) -> dict:
    """One run in a process of its own, or what it found when it was done before.

    Raises:
        ValueError: it was done before with other settings.
    """
    work_dir = args.out / f"{start}_{seed}"
    settings = dict(start=start, seed=seed, **args.settings)
    done = work_dir / "result.json"
    if done.exists():
        run = json.loads(done.read_text())
        if run["settings"] != settings:
            raise ValueError(f"{done} is of {run['settings']}, this command of {settings}: choose another --out")
        return run
    work_dir.mkdir(parents=True, exist_ok=True)
    config = work_dir / f"{start}.py"
    config.write_text(config_text(start, args.detector, args.backbone))
    command = [sys.executable, str(ROOT / "tools/train.py"), str(config), "--data-root", str(args.data_root)]
    command += ["--work-dir", str(work_dir), "--cfg-options", f"randomness.seed={seed}", *args.cfg_options]
    environment = {**os.environ, **({"CLASSES": args.classes} if args.classes else {})}
    began = time.monotonic()
    with open(work_dir / "output.txt", "w") as output:
        subprocess.run(command, check=True, env=environment, stdout=output, stderr=subprocess.STDOUT)
    seconds = round(time.monotonic() - began, 1)
    run = dict(start=start, seed=seed, seconds=seconds, settings=settings, **last_metrics(work_dir))
    done.write_text(json.dumps(run, indent=1))
    return run


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", type=Path, help="exported config; its weights lie beside it")
    parser.add_argument("--backbone", type=Path, required=True, help="the file that pretraining was started from")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--classes", help="object names, with commas between, of data in Pascal VOC's layout")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=list(STARTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="of all runs")
    args = parser.parse_args(argv)
    for name in ("detector", "backbone", "data_root", "out"):
        setattr(args, name, getattr(args, name).resolve())
    for path in (args.detector, args.detector.with_suffix(".pth"), args.backbone):
        if not path.is_file():
            parser.error(f"no file at {path}")
    args.settings = {
        name: str(getattr(args, name)) for name in ("detector", "backbone", "data_root", "classes", "cfg_options")
    }
    return args


def main() -> None:
    args = parse()
    runs = []
    for seed in args.seeds:
        for start in args.starts:
            runs.append(fine_tune(start, seed, args))
            (args.out / "results.json").write_text(json.dumps(runs, indent=1))
            print(f"\n{table(runs)}", flush=True)


if __name__ == "__main__":
    main()
