"""Compare dense terms at equal wall time: train the configs of `configs/small/`, then evaluate the frozen features.

    python benchmarks/dense_terms.py --data photos/ --classes photos/caltech101 --minutes 10 --out work_dirs/dense_terms

Every run trains for the given minutes of wall time, without start-up. Its number of steps is estimated anew every ten
steps, so that its schedules end with it. The features are evaluated by leave-one-out nearest neighbours (pooled C4 or
C5) on a folder with one subfolder per class, and by dense matching of a stereo pair at full size, as it is and relit:
the share of cells of C3 or C4 whose nearest neighbour is the cell that contains the true position. Finished runs are
not repeated.
"""

import argparse
import json
import time
from multiprocessing import get_context
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.branches.backbone import build_backbone
from densessl.cli.train import settings_of
from densessl.engine.lr_hook import LRHook, horizon_of
from densessl.engine.runner import DenseRunner
from densessl.insight import dense_matching, motorcycle, relit
from densessl.insight.knn import labelled_images, leave_one_out_knn, pooled_features
from densessl.registry import HOOKS
from densessl.runs import run_config
from densessl.weights.io.checkpoints import read_checkpoint
from densessl.weights.read import read_backbone
from densessl.weights.state import bare_model

ROOT = Path(__file__).parent.parent
CONFIGS = ("mocov2_r18", "pixpro_r18", "densecl_r18", "lcloss_r18", "densesiam_r18", "scfs_r18")
SIZE = (512, 768)  # the pair is 500 x 741
LEVELS = (1, 2, 3)  # C3, C4, C5


@HOOKS.register_module()
class WallClock(Hook):
    """Ends a run, and its schedules with it, after a number of minutes.

    Every ten steps, it sets the length of the run to the number of steps that the pace so far allows. It writes the
    steps and minutes to ``wall_clock.json``.
    """

    priority = "VERY_LOW"

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes
        self.start = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self.start = self.start or time.monotonic()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        done = runner.iter + 1
        if done % 10 == 0:
            pace = (time.monotonic() - self.start) / done
            runner.train_loop._max_iters = max(done + 1, round(self.seconds / pace))
            horizon = horizon_of(runner)
            bare_model(runner.model).begin(horizon, runner.seed)
            for hook in runner.hooks:
                if isinstance(hook, LRHook):
                    hook.horizon = horizon

    def after_train(self, runner: Runner) -> None:
        told = dict(steps=runner.iter, minutes=(time.monotonic() - self.start) / 60)
        Path(runner.work_dir, "wall_clock.json").write_text(json.dumps(told))


def train(config: str, minutes: float, work_dir: str, data: str) -> None:
    """Train for a number of minutes; called in a separate process."""
    arguments = [str(ROOT / f"configs/small/{config}.py"), "--data-root", data, "--work-dir", work_dir]
    cfg = run_config(settings_of(arguments))
    cfg.train_cfg = dict(by_epoch=False, max_iters=1000)
    cfg.log_processor.by_epoch = False
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=10**9, save_last=True)
    cfg.default_hooks.logger.interval = 10
    cfg.custom_hooks = [*cfg.get("custom_hooks", []), dict(type="WallClock", minutes=minutes)]
    DenseRunner.from_cfg(cfg).train()


@torch.no_grad()
def ask(backbone: torch.nn.Module, classes: str, trained: tuple[bool, ...]) -> dict[str, float]:
    """The figures of a backbone with maps C3, C4 and C5, without those of levels that were not trained."""
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
    parser.add_argument("--classes", required=True, help="folder with one subfolder of images per class")
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
            process = get_context("spawn").Process(target=train, args=(config, args.minutes, str(work_dir), args.data))
            process.start()
            process.join()
            told = json.loads((work_dir / "wall_clock.json").read_text())
            checkpoint = work_dir / f"iter_{told['steps']}.pth"
            about = read_checkpoint(checkpoint)["meta"]["densessl"]["backbone"]
            backbone = build_backbone(dict(about, out_indices=LEVELS))
            state, _ = read_backbone(checkpoint)
            backbone.load_state_dict(state)
            figures = ask(backbone, args.classes, tuple(level <= max(about["out_indices"]) for level in LEVELS))
            record.write_text(json.dumps({**told, **figures}, indent=1))
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
