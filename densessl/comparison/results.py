"""Read a run's logs: metrics at every evaluation, seconds per step, and the load report."""

import json
import math
import re
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from densessl.comparison.cells import OUTPUT, CompareError
from densessl.engine.vis_backends import to_json
from densessl.finetune.config.notes import NOTE
from densessl.wording import nearest

# Key in MMDetection's or MMSegmentation's logs -> name in tables.
METRICS = {
    "coco/bbox_mAP": "AP",
    "coco/bbox_mAP_50": "AP50",
    "coco/bbox_mAP_75": "AP75",
    "coco/bbox_AR@100": "AR@100",
    "coco/segm_mAP": "mask AP",
    "coco/segm_mAP_50": "mask AP50",
    "coco/segm_mAP_75": "mask AP75",
    "cityscapes/mAP": "Cityscapes AP",
    "cityscapes/AP@50": "Cityscapes AP50",
    "pascal_voc/mAP": "VOC mAP",
    "pascal_voc/AP50": "VOC AP50",
    "mIoU": "mIoU",
}
FRACTIONS = ("coco/", "cityscapes/", "pascal_voc/")  # metrics from 0 to 1; MMSegmentation logs percent
NOTHING_FOUND = "testing results of the whole dataset is empty"  # CocoMetric prints this and logs no metric
# Keys in a log's line of metrics that are not metrics.
OTHERS = {"step", "iter", "epoch", "time", "data_time", "memory"}


def log_lines(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of a run's scalars in order of time, from MMEngine's ``vis_data/scalars.json`` or, if the config
    writes it, ``metrics.jsonl``. Stops at an incomplete line."""
    logs = [*sorted(run.glob("*/vis_data/scalars.json")), *run.glob("metrics.jsonl")]
    for log in logs:
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return


def read_curve(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the evaluations of a run, in order: ``{"step": 200, "coco/bbox_mAP": 0.31, …}``. Metrics are as logged; an
    evaluation without metrics has its step only.

    In runs by epochs, stock loggers count epochs, not steps, at evaluations. The step is then that of the last training
    step logged before, which is always the larger number.
    """
    curve, last = [], 0
    for line in lines:
        if "lr" in line or any(key.startswith("loss") for key in line):
            last = max(last, line.get("step", 0))
            continue
        metrics = {key: value for key, value in line.items() if key not in OTHERS and isinstance(value, int | float)}
        curve.append({"step": max(line.get("step", 0), last), **{k: to_json(v) for k, v in metrics.items()}})
    return curve


def read_loads(output: str) -> list[str]:
    """Return the lines in which a run reports what it loaded, or that it loaded nothing, and its notes."""
    lines = re.findall(r"Load(?:Backbone|Detector)Hook: (.*)", output)
    loads = [line for line in lines if re.search(r"tensors (loaded|fit)|none loaded|keeps its", line)]
    return loads + re.findall(rf" - ({NOTE}.*)", output)


def read_run(run: Path, steps: int | None = None) -> dict[str, Any]:
    """Read ``{"curve": …, "load": …}`` of a fine-tuning run.

    Args:
        steps: Planned number of optimiser steps. Logs count iterations, several per step if gradients are accumulated.

    Raises:
        ValueError: No evaluation was logged, or the last one is not at the end.
    """
    output = (run / OUTPUT).read_text(encoding="utf-8", errors="replace")
    curve = read_curve(list(log_lines(run)))
    if NOTHING_FOUND not in output:
        curve = [line for line in curve if len(line) > 1]
    if not curve:
        raise ValueError(f"no evaluation in its logs ({run}/*/vis_data/scalars.json)")
    if steps is not None:
        last = curve[-1]["step"]
        if not last or last % steps:
            raise ValueError(f"the last evaluation in its logs is of step {last}, expected {steps}")
        curve = [{**line, "step": line["step"] * steps // last} for line in curve]
    return dict(curve=curve, load=read_loads(output))


def read_step_seconds(run: Path, steps: int) -> float:
    """Return the seconds per optimiser step of a run of ``steps`` steps, including waiting for data: the median over
    the second half of the log.

    Raises:
        ValueError: Fewer than two lines with a time were logged.
    """
    lines = [line for line in log_lines(run) if "lr" in line and ("time" in line or "step_time" in line)]
    if len(lines) < 2:
        raise ValueError(f"expected two or more logged steps with their time, found {len(lines)}")
    # In MMEngine's logs `time` is that of an iteration; in densessl's it is the time of day, and `step_time` is an
    # iteration's.
    seconds = [line.get("step_time", line.get("time")) for line in lines[len(lines) // 2 :]]
    return statistics.median(seconds) * max(1, round(lines[-1]["step"] / steps))


def value(evaluation: Mapping[str, Any], key: str) -> float | None:
    """Return a metric as it is shown: in percent if it is known to be a fraction; None if it was not measured.
    MMDetection logs -1 if there was nothing to detect, and omits COCO's metrics if nothing was detected, which counts
    as 0."""
    logged = evaluation.get(key, 0.0 if key.startswith("coco/") else None)
    if logged is None or not math.isfinite(logged) or (logged == -1 and is_percent(key)):
        return None
    return logged * 100 if key.startswith(FRACTIONS) else logged


def is_percent(key: str) -> bool:
    """Whether :func:`value` is known to return percent."""
    return key in METRICS or key.startswith(FRACTIONS)


def label(key: str) -> str:
    """A metric's name in tables."""
    return METRICS.get(key, key)


def choose_metrics(found: Collection[str], wanted: Sequence[str] = ()) -> list[str]:
    """Choose the metrics to show: those in ``wanted``, given by their keys or names in tables.

    By default, they are those of :data:`METRICS` that were measured, or else all; COCO's AP if no run found anything.

    Raises:
        CompareError: One of ``wanted`` was not measured.
    """
    keys = {label(key): key for key in found} | {key: key for key in found}
    for name in wanted:
        if name not in keys:
            near = nearest(name, keys, count=1, cutoff=0.0)
            raise CompareError(f"metric {name!r} was not measured; found {sorted(found)}, nearest is {near}")
    if wanted:
        return list(dict.fromkeys(keys[name] for name in wanted))
    known = [key for key in METRICS if key in found]
    if "pascal_voc/AP50" in known and not any(key.startswith("pascal_voc/AP") and key[-2:] != "50" for key in found):
        known.remove("pascal_voc/mAP")  # the same figure: the mean over one threshold
    return known or sorted(found) or ["coco/bbox_mAP"]
