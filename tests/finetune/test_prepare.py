"""What the words of the command line make of a detector's config, and what they say when they cannot."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from densessl.cli.train import main, settings_of
from densessl.errors import SettingError, UnsafeCheckpointError
from densessl.finetune.config.prepare import read_data, set_init
from densessl.runs import run_config
from densessl.weights.export import export_backbone
from tests.finetune.voc_coco_fixtures import write_voc
from tests.weights.cases import checkpoint

SMALL = str(Path(__file__).parents[2] / "configs/transfer/voc/retinanet_r18_256_voc.py")
BACKBONE, DETECTOR = "densessl.LoadBackboneHook", "densessl.LoadDetectorHook"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An export, a training checkpoint, weights of torchvision's kind, and two files with whole detectors."""
    folder = tmp_path_factory.mktemp("files")
    content, online, _ = checkpoint()
    export_backbone(content, folder / "export.pth")
    torch.save(content, folder / "training.pth")
    torch.save(online.state_dict(), folder / "bare.pth")
    detector = {"state_dict": {"backbone.conv1.weight": torch.ones(1)}, "meta": {"detector": {"config": "mmdet::x"}}}
    torch.save(detector, folder / "detector.pth")
    pretraining = {
        "state_dict": {"detector.backbone.conv1.weight": torch.ones(1)},
        "meta": {"densessl": {"detector": ""}},
    }
    torch.save(pretraining, folder / "pretraining.pth")
    return folder


def config(hooks: list | None = None, **model) -> Config:
    return Config(dict(model=dict(backbone=dict(type="ResNet"), **model), custom_hooks=hooks, load_from="old.pth"))


@pytest.mark.parametrize("name", ["export", "training", "bare"])
def test_backbones_go_into_the_hook_wherever_it_is(files, name):
    file, other = str(files / f"{name}.pth"), dict(type="EMAHook")
    cfg = config([other, dict(type=BACKBONE, checkpoint=None, min_coverage=0.9), other])
    set_init(cfg, file)
    assert cfg.custom_hooks == [other, dict(type=BACKBONE, checkpoint=file, min_coverage=0.9), other]
    for hooks in (None, [other]):
        cfg = config(hooks)
        set_init(cfg, file)
        assert cfg.custom_hooks == [*(hooks or []), dict(type=BACKBONE, checkpoint=file)]
    cfg = config([dict(type=DETECTOR, checkpoint="old.pth"), other, dict(type=BACKBONE)])
    set_init(cfg, file)
    assert cfg.custom_hooks == [dict(type=BACKBONE, checkpoint=file), other]


@pytest.mark.parametrize("name", ["detector", "pretraining"])
def test_whole_detectors_go_into_a_hook_of_their_own(files, name):
    file = str(files / f"{name}.pth")
    cfg = config([dict(type=BACKBONE, checkpoint=None, min_coverage=0.9)])
    set_init(cfg, file)
    assert cfg.custom_hooks == [dict(type=DETECTOR, checkpoint=file)]


def test_random_numbers_are_what_the_hook_is_told_and_nothing_else_is_loaded():
    pretrained = dict(type="Pretrained", checkpoint="torchvision://resnet50")
    normal = dict(type="Normal", layer="Conv2d")
    cfg = config([dict(type=DETECTOR, checkpoint="old.pth")], pretrained="open-mmlab://resnet50_v1c")
    cfg.model.backbone.init_cfg = dict(pretrained)
    cfg.model.roi_head = dict(shared_head=dict(init_cfg=dict(pretrained)), heads=[dict(init_cfg=dict(pretrained))])
    cfg.model.neck = dict(init_cfg=dict(normal))
    set_init(cfg, "none")
    assert cfg.custom_hooks == [dict(type=DETECTOR, checkpoint=None)]
    assert cfg.model.pretrained is cfg.model.backbone.init_cfg is cfg.load_from is None
    assert cfg.model.roi_head.shared_head.init_cfg is cfg.model.roi_head.heads[0].init_cfg is None
    assert cfg.model.neck.init_cfg == normal


def test_files_that_cannot_be_read_are_told(tmp_path):
    (tmp_path / "r18.pth").write_bytes(b"no checkpoint")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*r81\.pth; near it is r18\.pth"):
        set_init(config(), str(tmp_path / "r81.pth"))
    with pytest.raises(SettingError, match=r"--init: .*r18\.pth is not a readable checkpoint"):
        set_init(config(), str(tmp_path / "r18.pth"))

    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"state_dict": {"weight": Payload()}}, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpointError):
        set_init(config(), str(tmp_path / "evil.pth"))
    assert not (tmp_path / "executed").exists()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSES", "fox,owl")
    return write_voc(tmp_path / "data", images=8)


@pytest.mark.det
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--labels", "10"], "did you mean 10%?"),
        (["--labels", "99-images"], "expected at most 8-images"),
        (["--labels-seed", "1"], "--labels-seed needs --labels"),
        (["--evaluations", "3"], "--evaluations needs --steps N"),
        (["--steps", "0"], "--steps: found 0, expected a whole number of at least 1"),
        (["--steps", "5", "--evaluations", "6"], "the nearest is 5"),
        (["--demo"], "--demo is for pretraining configs"),
        (["--regions", "store"], "--regions is for pretraining configs"),
        (["--init", "nowhere.pth"], "no checkpoint nowhere.pth"),
        (["--cfg-options", "custom_hooks.7.branch=target"], "custom_hooks.7.branch: "),
        (["--cfg-options", "train_dataloader.dataset.metainfo.classes=['hen']"], "none of the data set's 1 classes"),
    ],
)
def test_words_that_do_not_fit_end_the_process_with_their_message(data, tmp_path, capsys, words, said):
    assert main([SMALL, "--data-root", str(data), "--work-dir", str(tmp_path / "run"), *words]) == 2
    assert said in "".join(capsys.readouterr())
    assert not list((tmp_path / "run").rglob("*.pth"))


@pytest.mark.det
def test_missing_data_ends_the_process_with_the_layout(data, tmp_path, capsys):
    (data / "VOC2007/ImageSets/Main/test.txt").unlink()
    assert main([SMALL, "--data-root", str(data), "--work-dir", str(tmp_path / "run")]) == 2
    assert "test.txt   <- missing" in "".join(capsys.readouterr())


@pytest.mark.det
def test_options_have_the_last_word_and_few_labels_keep_the_length_of_the_schedule(data, tmp_path, files):
    words = [SMALL, "--data-root", str(data), "--work-dir", str(tmp_path), "--init", str(files / "export.pth")]
    words += ["--labels", "50%", "--labels-seed", "2", "--seed", "7", "--steps", "30", "--evaluations", "3"]
    settings = settings_of(
        [*words, "--cfg-options", "custom_hooks.0.min_coverage=0.5", "train_dataloader.batch_size=2"]
    )
    cfg = run_config(settings)
    assert cfg.custom_hooks[0] == dict(type=BACKBONE, checkpoint=str(files / "export.pth"), min_coverage=0.5)
    assert cfg.randomness.seed == 7 and cfg.train_cfg.max_epochs == 15
    lines = read_data(cfg, settings)
    # 15 epochs of 8 photos in pairs are 60 steps, of which 40 are warm-up: 20 of 30. With 4 photos there would be none.
    assert cfg.param_scheduler[0].end == 20 and cfg.train_cfg.max_iters == 30 and cfg.train_cfg.val_interval == 10
    assert lines[0] == "--steps: the schedule of 15 epochs in 30 steps, evaluated 3 times"
    assert lines[1].startswith("--labels 50%, seed 2: 4 of 8 images")


@pytest.mark.det
def test_epochs_of_few_labels_and_frozen_random_layers_are_said(data, tmp_path):
    words = [SMALL, "--data-root", str(data), "--work-dir", str(tmp_path), "--init", "none", "--labels", "50%"]
    settings = settings_of([*words, "--cfg-options", "model.backbone.frozen_stages=1"])
    lines = read_data(run_config(settings), settings)
    assert any("--steps N keeps the length" in line for line in lines)
    assert any(
        "frozen_stages=1, which keeps layers or statistics at their random initial values" in line for line in lines
    )


@pytest.mark.det
@pytest.mark.slow
def test_a_run_from_the_command_line(data, tmp_path, files, capsys):
    tiny = [
        "train_dataloader.num_workers=0",
        "val_dataloader.num_workers=0",
        "train_dataloader.persistent_workers=False",
    ]
    tiny += ["train_dataloader.batch_size=2", "train_dataloader.dataset.pipeline.2.scale=(96,64)"]
    tiny += [
        "val_dataloader.dataset.pipeline.1.scale=(96,64)",
        "test_evaluator=None",
        "test_dataloader=None",
        "test_cfg=None",
    ]
    tiny += ["model.test_cfg.score_thr=0.0"]

    def run(name, *words):
        common = ["--data-root", str(data), "--work-dir", str(tmp_path / name)]
        code = main([SMALL, *common, *words, "--cfg-options", *tiny, f"experiment_name={name}"])
        return code, "".join(capsys.readouterr())

    words = [
        "--init",
        str(files / "training.pth"),
        "--labels",
        "3-shot",
        "--steps",
        "3",
        "--evaluations",
        "2",
        "--seed",
        "5",
    ]
    assert run("first", *words)[0] == 0
    text = next((tmp_path / "first").rglob("*.log")).read_text()
    assert "120/120 backbone tensors loaded; 0 unexpected" in text and "seed 5" in text
    assert "--labels 3-shot, seed 0:" in text and "fox 3, owl 3" in text
    scores = [json.loads(line) for line in next((tmp_path / "first").rglob("scalars.json")).read_text().splitlines()]
    assert [score["step"] for score in scores if "pascal_voc/mAP" in score] == [2, 3]
    assert [file.name for file in (tmp_path / "first").glob("*.pth")] == ["iter_3.pth"]
    narrow, _, _ = checkpoint(width=32)
    torch.save(narrow, tmp_path / "narrow.pth")
    code, text = run("second", "--init", str(tmp_path / "narrow.pth"), "--steps", "3")
    assert code == 2 and "was trained in another network" in text and "set backbone.base_channels=32" in text
    assert not list((tmp_path / "second").glob("*.pth"))
