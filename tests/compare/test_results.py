"""Reading of logs: lines as MMEngine, MMDetection and MMSegmentation write them."""

import json
import math

import pytest

from densessl.comparison.cells import CompareError
from densessl.comparison.results import choose_metrics, read_curve, read_loads, read_run, read_step_seconds, value

# An epoch's end of a stock MMDetection run, whose evaluation counts epochs.
BY_EPOCH = [
    {"lr": 0.01, "data_time": 0.03, "grad_norm": 7.2, "loss": 1.9, "time": 2.1, "epoch": 1, "iter": 10, "step": 10},
    {"lr": 0.01, "data_time": 0.03, "grad_norm": 7.2, "loss": 1.9, "time": 2.1, "epoch": 5, "iter": 90, "step": 90},
    {"pascal_voc/mAP": 0.7767, "coco/bbox_mAP": 0.27, "data_time": 0.03, "time": 1.7, "step": 5},
]


def write_log(run, lines, name="20260101_000000/vis_data/scalars.json"):
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    (run / "output.txt").touch()


def train(step, seconds=1.0, **more):
    return {"lr": 0.1, "loss": 1.0, "time": seconds, "iter": step, "step": step, **more}


def test_an_evaluation_has_the_step_of_the_training_before_it():
    assert read_curve(BY_EPOCH) == [{"step": 90, "pascal_voc/mAP": 0.7767, "coco/bbox_mAP": 0.27}]
    assert read_curve([{"mIoU": 41.2, "step": 7}]) == [{"step": 7, "mIoU": 41.2}]


def test_nan_is_kept_as_null():
    assert read_curve([{"mIoU": math.nan, "step": 7}]) == [{"step": 7, "mIoU": None}]


def test_accumulated_iterations_are_counted_as_steps(tmp_path):
    write_log(tmp_path, [train(1), {"mIoU": 1.0, "step": 20}, {"mIoU": 2.0, "step": 40}])
    assert [line["step"] for line in read_run(tmp_path, steps=10)["curve"]] == [5, 10]


def test_a_run_without_its_last_evaluation_has_no_result(tmp_path):
    write_log(tmp_path, [train(1), {"mIoU": 1.0, "step": 20}])
    with pytest.raises(ValueError, match="step 20, expected 30"):
        read_run(tmp_path, steps=30)


def test_an_evaluation_that_found_nothing_counts_as_zero(tmp_path):
    empty = {"data_time": 0.1, "time": 0.2, "step": 20}
    write_log(tmp_path, [train(1), {"coco/bbox_mAP": 0.1, "step": 10}, train(20), empty])
    with pytest.raises(ValueError, match="step 10, expected 20"):  # who logs nothing may have been stopped
        read_run(tmp_path, steps=20)
    (tmp_path / "output.txt").write_text("- ERROR - The testing results of the whole dataset is empty.\n")
    curve = read_run(tmp_path, steps=20)["curve"]
    assert curve == [{"step": 10, "coco/bbox_mAP": 0.1}, {"step": 20}]
    assert value(curve[-1], "coco/bbox_mAP") == 0.0 and choose_metrics([]) == ["coco/bbox_mAP"]


def test_a_torn_last_line_ends_the_log(tmp_path):
    write_log(tmp_path, [train(1), {"mIoU": 1.0, "step": 20}])
    log = tmp_path / "20260101_000000/vis_data/scalars.json"
    log.write_text(log.read_text() + '{"mIoU": 3.')
    assert read_run(tmp_path)["curve"] == [{"step": 20, "mIoU": 1.0}]


def test_step_seconds_leave_the_warm_up_out(tmp_path):
    write_log(tmp_path, [train(5, 90.0), train(10, 8.0), train(15, 1.0), train(20, 1.2)])
    assert read_step_seconds(tmp_path, steps=20) == pytest.approx(1.1)
    assert read_step_seconds(tmp_path, steps=10) == pytest.approx(2.2)  # two iterations a step


def test_step_seconds_of_densessl_logs(tmp_path):
    write_log(tmp_path, [train(i, 1.7e9, step_time=0.3) for i in (5, 10, 15)], "metrics.jsonl")
    assert read_step_seconds(tmp_path, steps=15) == pytest.approx(0.3)


def test_loads():
    found = read_loads(
        "11:00 - mmengine - INFO - LoadBackboneHook: a.pth: 320/320 backbone tensors loaded; 0 unexpected\n"
        "  not verified: std\n"
        "11:00 - mmengine - INFO - LoadDetectorHook: 9/9 detector tensors loaded; 0 unexpected\n"
        "11:00 - mmengine - INFO - LoadBackboneHook: checkpoint=None, so the backbone keeps its random initialisation\n"
        "(VERY_HIGH   ) LoadBackboneHook                   \n"
        "11:00 - mmengine - INFO - note: a step has 2 images\n"
    )
    assert [line.split(";")[0].split(",")[0] for line in found] == [
        "a.pth: 320/320 backbone tensors loaded",
        "9/9 detector tensors loaded",
        "checkpoint=None",
        "note: a step has 2 images",
    ]


def test_percent():
    line = {"coco/bbox_mAP": 0.27, "mIoU": 41.2, "coco/bbox_mAP_75": -1.0, "own": -1.0, "pascal_voc/mAP": None}
    assert value(line, "coco/bbox_mAP") == pytest.approx(27) and value(line, "mIoU") == 41.2
    assert value(line, "coco/bbox_mAP_75") is None and value(line, "pascal_voc/mAP") is None
    assert value({"coco/bbox_mAP_s": 0.153}, "coco/bbox_mAP_s") == pytest.approx(15.3)
    assert value({"coco/bbox_mAP_s": -1.0}, "coco/bbox_mAP_s") is None
    assert value(line, "own") == -1.0 and value(line, "absent") is None
    assert value(line, "coco/segm_mAP") == 0.0  # as MMDetection does where nothing was detected


def test_metrics_of_interest():
    coco = ["coco/bbox_mAP", "coco/bbox_mAP_50", "coco/bbox_mAP_s", "pascal_voc/mAP", "pascal_voc/AP50"]
    assert choose_metrics(coco) == ["coco/bbox_mAP", "coco/bbox_mAP_50", "pascal_voc/AP50"]
    assert "pascal_voc/mAP" in choose_metrics([*coco, "pascal_voc/AP75"])  # a mean over thresholds, not AP50 again
    assert choose_metrics(["recall", "accuracy"]) == ["accuracy", "recall"]
    assert choose_metrics(coco, ["AP50", "coco/bbox_mAP_s"]) == ["coco/bbox_mAP_50", "coco/bbox_mAP_s"]
    with pytest.raises(CompareError, match=r"'AP5' was not measured.*nearest.*'AP50'"):
        choose_metrics(coco, ["AP5"])
