"""Dense terms compared at equal wall time: train the configs of `configs/small/`, then ask the frozen features.

    python benchmarks/dense_terms.py --data photos/ --classes photos/caltech101 --minutes 10 --out work_dirs/dense_terms

Every config is first timed over a few steps and then given the number of steps that fill the minutes, so that its
schedule ends with the run. Asked are: nearest neighbours (each image left out once, averages of C4 or C5) on a folder
of folders, one a class; and dense matching of a stereo pair at its full size (share of cells of C3 or C4 whose nearest
neighbour is the cell the truth lies in), in equal light and relit. Runs that are finished are not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from densessl.branches.backbone import build_backbone
from densessl.engine.checkpoint import read_checkpoint
from densessl.insight import dense_matching, motorcycle, relit
from densessl.insight.knn import labelled_images, leave_one_out_knn, pooled_features
from densessl.transfer.export import read_backbone

ROOT = Path(__file__).parent.parent
CONFIGS = ("mocov2_r18", "pixpro_r18", "densecl_r18", "lcloss_r18", "densesiam_r18", "scfs_r18")
SIZE = (512, 768)  # the pair is 500 x 741
LEVELS = (1, 2, 3)  # C3, C4, C5


def train(config: str, steps: int, work_dir: Path, data: str) -> float:
    """Train for so many steps; seconds the process took."""
    options = dict(_delete_=True, by_epoch=False, max_iters=steps)
    command = [sys.executable, str(ROOT / "tools/train.py"), str(ROOT / f"configs/small/{config}.py")]
    command += ["--data-root", data, "--work-dir", str(work_dir), "--cfg-options"]
    command += [f"train_cfg.{key}={value}" for key, value in options.items()]
    command += ["log_processor.by_epoch=False", "default_hooks.checkpoint.by_epoch=False"]
    command += [f"default_hooks.checkpoint.interval={steps}", "default_hooks.logger.interval=10"]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def steps_for(config: str, minutes: float, out: Path, data: str, probe: int = 6) -> int:
    """Steps that fill the minutes, by the difference of a short and a longer probe, which cancels the start-up."""
    short, longer = (train(config, n, out / f"probe_{config}_{n}", data) for n in (probe, 3 * probe))
    step = (longer - short) / (2 * probe)
    start_up = short - probe * step
    print(f"{config}: {step:.2f} s a step, {start_up:.0f} s to start", flush=True)
    return max(1, round((60 * minutes - start_up) / step))


@torch.no_grad()
def ask(backbone: torch.nn.Module, classes: str, trained: tuple[bool, ...]) -> dict[str, float]:
    """The figures of a backbone with maps C3, C4, C5; those of levels that were not trained are left out."""
    paths, labels, _ = labelled_images(classes)
    names = ("C3", "C4", "C5")
    figures = {}
    for name, vectors, known in zip(names, pooled_features(backbone, paths), trained):
        if known and name != "C3":
            figures[f"kNN {name}"] = leave_one_out_knn(vectors, labels)
    for light, pair in (("", motorcycle()), (", relit", relit(motorcycle()))):
        for level, name in enumerate(names[:2]):
            figures[f"matching {name}{light}"] = dense_matching(backbone, pair, SIZE, level).exact["features"]
    return figures


def chance(classes: str) -> dict[str, float]:
    _, labels, _ = labelled_images(classes)
    share = labels.bincount().max().item() / len(labels)
    figures = {f"kNN {name}": share for name in ("C4", "C5")}
    for light in ("", ", relit"):
        for name, stride in (("C3", 8), ("C4", 16)):
            figures[f"matching {name}{light}"] = stride * stride / (SIZE[0] * SIZE[1])
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="images to pretrain on")
    parser.add_argument("--classes", required=True, help="folder of folders of images, one a class")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("work_dirs/dense_terms"))
    parser.add_argument("--configs", nargs="+", default=CONFIGS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows = {"chance": chance(args.classes)}
    torch.manual_seed(0)
    random = build_backbone(dict(type="ResNet", depth=18, out_indices=LEVELS))
    rows["random init"] = ask(random, args.classes, (True,) * 3)
    for config in args.configs:
        record, work_dir = args.out / f"{config}.json", args.out / config
        if not record.exists():
            steps = steps_for(config, args.minutes, args.out, args.data)
            seconds = train(config, steps, work_dir, args.data)
            checkpoint = next(work_dir.glob(f"iter_{steps}.pth"))
            about = read_checkpoint(checkpoint)["meta"]["densessl"]["backbone"]
            backbone = build_backbone(dict(about, out_indices=LEVELS))
            state, _ = read_backbone(checkpoint)
            backbone.load_state_dict(state)
            figures = ask(backbone, args.classes, tuple(level <= max(about["out_indices"]) for level in LEVELS))
            record.write_text(json.dumps(dict(steps=steps, minutes=seconds / 60, **figures), indent=1))
        rows[config] = json.loads(record.read_text())
        print(config, rows[config], flush=True)
    columns = ["steps", "minutes", *rows["random init"]]
    lines = [" | ".join(["| ", *columns, ""]).strip(), "|" + "---|" * (len(columns) + 1)]
    for name, row in rows.items():
        cells = [f"{row[c]:.3f}" if c not in ("steps", "minutes") else f"{row[c]:.4g}" for c in columns if c in row]
        padded = iter(cells)
        lines.append(f"| {name} | " + " | ".join(next(padded) if c in row else "–" for c in columns) + " |")
    text = "\n".join(lines) + "\n"
    (args.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
