"""Stands for ``tools/train.py``: takes its words, and logs as MMEngine does, but learns nothing.

AP is 10 + 5 for a file that says "good" + the seed, at the end, and grows linearly with the steps. A file that says
"bad" ends the run with exit code 2, "slow" makes it wait, "silent" leaves no evaluation, and
"empty" finds nothing, of which MMDetection logs no metrics.
"""

import argparse
import json
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("config")
for word in ("--data-root", "--init", "--labels", "--work-dir"):
    parser.add_argument(word)
for word in ("--steps", "--evaluations", "--seed"):
    parser.add_argument(word, type=int)
parser.add_argument("--cfg-options", nargs="+", default=[])
args = parser.parse_args()

init = "" if args.init in (None, "none") else Path(args.init).read_bytes()[:40].decode(errors="ignore")
work_dir = Path(args.work_dir)
runs = next(folder for folder in work_dir.parents if folder.name == "runs")
with open(runs / "started", "a") as file:
    file.write(f"{work_dir.name}\n")
print(f"threads {os.environ.get('OMP_NUM_THREADS')}")
if "bad" in init:
    print("\n".join(f"line {number}" for number in range(100)) + "\nno such layer")
    raise SystemExit(2)
if "slow" in init:
    time.sleep(60)

steps = args.steps or 12
logs = work_dir / "20260101_000000/vis_data"
logs.mkdir(parents=True)
(work_dir / "iter_1.pth").write_text("weights")
(work_dir / "last_checkpoint").write_text("iter_1.pth")
final = 0.10 + 0.05 * ("good" in init) + 0.01 * args.seed
with open(logs / "scalars.json", "w") as file:
    for step in range(1, steps + 1):
        seconds = 9.0 if step < 5 else 0.5
        train = {"lr": 0.1, "data_time": 0.1, "loss": 1.0, "time": seconds, "iter": step, "memory": 1, "step": step}
        file.write(json.dumps(train) + "\n")
        every = steps // (args.evaluations or 2)
        if step % every == 0 and "silent" not in init:
            metrics = {"coco/bbox_mAP": final * step / steps, "coco/bbox_mAP_50": -1.0, "coco/bbox_mAP_s": -1.0}
            if "empty" in init:
                print("2026 - mmengine - ERROR - The testing results of the whole dataset is empty.")
                metrics = {}
            file.write(json.dumps({**metrics, "data_time": 0.1, "time": 0.2, "step": step}) + "\n")
if init:
    print("2026 - mmengine - INFO - LoadBackboneHook: x.pth: 120/120 backbone tensors loaded; 0 unexpected")
