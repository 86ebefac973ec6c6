"""Wrong command lines and configs of ``densessl train``: each has an exit code and a message, and touches nothing."""

import re
from dataclasses import replace

import pytest
from mmengine.registry import DefaultScope

from densessl.cli import main
from densessl.cli.train import settings_of
from densessl.configs import is_pretraining, load_config, shipped_configs
from densessl.engine.runner import DenseRunner
from densessl.loaders import LOADERS, settle_workers
from densessl.preflight import check_images
from densessl.pretraining import complete_config
from densessl.runs import run_config
from tests.faults import expect, images_opened, rows

CONFIGS = """
    train pixpro_r19 | no config 'pixpro_r19'.*did you mean pixpro_r18
    train configs/pixpro_r51.py | did you mean pixpro_r50
    train nowhere/pixpro.py | no config 'nowhere/pixpro.py'.*did you mean pixpro_r50
    train '' | config: found '', expected a config file
    train photos | photos is a folder, expected a config file
    train a_file | a_file is no config: expected a Python file
    train photos.csv | photos.csv is no config
    train ours.pth | ours.pth is no config
    train list.json | list.json cannot be read as a config: expected a dict of settings
    train broken.json | broken.json cannot be read as a config
    train broken.py | broken.py cannot be read as a config: SyntaxError: '\\(' was never closed \\(line 1\\)
    train divides.py | divides.py cannot be read as a config: ZeroDivisionError: division by zero \\(line 1\\)
    train imports.py | imports.py cannot be read as a config: .*no_such_module
    train base_missing.py | base_missing.py cannot be read as a config: no file .*nowhere.py
    train no_config.py | model: missing, expected the config of a model
    train mmdet::retinanet/retinanet_r50_fpn_1x_cocoo | nearest names are .*retinanet_r50_fpn_1x_coco.py
    train mmpose::a/b | package 'mmpose' is none of
    train no_hooks.py | (?s)hooks.step: .*StepHook.*hooks.lr: .*LRHook.*hooks.export: .*ExportHook
    train twins.py --data-root photos | model.objectives.1.name: two objectives are named 'a'
    train masks.py --data-root photos | mask
"""
COMMAND_LINES = """
    train | the following arguments are required: config
    train tiny.py extra | unrecognized arguments: extra
    train tiny.py --data-rot photos | unrecognized arguments: --data-rot photos; did you mean --data-root
    train tiny.py --data-root | --data-root: expected at least one argument
    train tiny.py --launcher mpi | --launcher: invalid choice: 'mpi' \\(choose from 'none', 'pytorch', 'slurm'\\)
    train tiny.py --set | --set/--cfg-options: expected at least one argument
    train tiny.py --set views.0.size | found 'views.0.size', expected KEY=VALUE
    TINY --seed x | --seed: invalid int value: 'x'
    TINY --seed -1 | --seed: found -1, expected a whole number of at least 0
    TINY --batch-size 0 | --batch-size: found 0, expected a whole number of at least 1 or 'auto'
    TINY --batch-size many | --batch-size: found 'many', expected a whole number or 'auto'
    TINY --batch-size 2.5 | --batch-size: found '2.5'
    TINY --epochs -3 | --epochs: found -3, expected a whole number of at least 1 or 'auto'
    TINY --seed -1 --epochs 0 --batch-size -2 | (?s)--seed: found -1.*--batch-size: found -2.*--epochs: found 0
    TINY --labels 10% | --labels is for detectors' and segmentors' configs; tiny.py pretrains
    TINY --labels-seed 1 | --labels-seed is for detectors'
    TINY --steps 9 | --steps is for detectors'
    TINY --evaluations 2 | --evaluations is for detectors'
    TINY --regions store | --regions is for configs whose method looks at regions; tiny.py has no `regions`
    train RETINANET --demo | --demo is for pretraining configs
    train RETINANET --epochs 3 | --epochs is for pretraining configs
    train RETINANET --batch-size auto | --batch-size auto is for pretraining configs
    train RETINANET --regions store | --regions is for pretraining configs
    train RETINANET --evaluations 2 | --evaluations needs --steps
    train RETINANET --labels-seed 2 | --labels-seed needs --labels
    train RETINANET --labels 10 | --labels: found '10'.*did you mean 10%
    train RETINANET --labels 200% | --labels: found '200%'
    train RETINANET --steps 0 | --steps: found 0, expected a whole number of at least 1
    TINY --work-dir a_file | --work-dir: a_file is no folder and cannot be one
    TINY --work-dir a_file/below | --work-dir: a_file/below is no folder .* a_file is a file|--work-dir: a_file/below
    train tiny.py --demo --work-dir demo --set demo=3 | demo: --demo has made its changes before this one
    train tiny.py --demo --work-dir demo --set learning_rate=3 | learning_rate: unknown
"""
DATA = """
    train tiny.py | no data set at .*data/imagenet/train.*--data-root FOLDER.*--demo
    train tiny.py --data-root nowhere | no data set at .*nowhere
    train tiny.py --data-root photo | no data set at .*has photos
    train tiny.py --data-root list.json | list.json is not in COCO format: expected a list under 'images', found a list
    train tiny.py --data-root broken.json | broken.json is not JSON
    train tiny.py --data-root photos.csv | photos.csv: expected a column path, .*it has
    train tiny.py --data-root photos/p0.png | found 1 image
    train tiny.py --data-root no_images.json | no_images.json names no image
    train tiny.py --data-root empty.txt | empty.txt names no image
    train tiny.py --data-root gone.json | gone.json names 'gone.png', which is not a file under
    train tiny.py --data-root gone.txt | 'photos/gone.png', which is not a file.* train_dataloader.dataset.root=FOLDER
    train tiny.py --data-root empty | no image in .*empty or below it: 0 files there
    train tiny.py --data-root notes | no image in .*notes or below it: 1 files there \\(1 .me\\)
    train tiny.py --data-root one | found 1 image for a batch of 4: not one full batch
    train tiny.py --data-root others | found 3 images for a batch of 4.*--batch-size auto
    train tiny.py --data-root one --batch-size auto | found 1 image for 1 batch a step
    TINY --set train_dataloader.drop_last=False | drop_last: found False with 9 images in batches of 4: the last batch
    TINY --launcher pytorch | launcher: found 'pytorch', but RANK is not in the environment; start .* torchrun
    TINY --set train_dataloader.dataset.limit=2 | found 2 images for a batch of 4
    train RETINANET --data-root nowhere | (?s)nowhere/   <- missing.*instances_train2017.json   <- missing
    train RETINANET --data-root photos | instances_train2017.json   <- missing
    train regions.py --data-root photos | regions build photos photo_regions`, and .* --regions FOLDER
    train regions.py --data-root photos --regions nowhere | nowhere does not exist. .* build photos nowhere`
    train regions.py --data-root photos --regions photos | no store of regions: photos has no manifest.json
    train regions.py --data-root photos --regions a_file | no store of regions: a_file is not a folder
    train regions.py --data-root photos --regions store_of_others | store_of_others has no regions of 'p0.png'
    train regions.py --data-root photos --regions store_damaged | boxes.bin has .* bytes, the manifest says
    train regions.py --data-root photos --regions store_unfinished | store_unfinished has no manifest
"""
WEIGHTS = """
    TINY --resume nowhere.pth | no checkpoint nowhere.pth
    TINY --resume photos | photos is a folder, expected a checkpoint
    TINY --resume text.pth | text.pth is not a readable checkpoint
    TINY --resume cut.pth | cut.pth is not a readable checkpoint: it is damaged, cut short
    TINY --resume tensor.pth | tensor.pth: expected a training checkpoint \\(a dict\\), found Tensor
    TINY --resume code.pth | code.pth holds the object `pathlib.PosixPath`; reading it could execute code
    TINY --init nowhere.pth | --init: no checkpoint nowhere.pth; near it
    TINY --init photos | --init: photos is a folder
    TINY --init text.pth | --init: text.pth is not a readable checkpoint
    TINY --init cut.pth | --init: cut.pth is not a readable checkpoint
    TINY --init empty.pth | --init: empty.pth is not a readable checkpoint
    TINY --init tensor.pth | --init: tensor.pth: expected named tensors, found Tensor
    TINY --init code.pth | --init: code.pth: expected named tensors
    TINY --init list.json | --init: list.json is not a readable checkpoint
    TINY --init photos/p0.png | --init: photos/p0.png is not a readable checkpoint
    TINY --set load_from=nowhere.pth | no checkpoint nowhere.pth
    TINY --set load_from=text.pth | text.pth is not a readable checkpoint
    train RETINANET --init text.pth | --init: text.pth is not a readable checkpoint
"""
AFTER_THE_MODEL = """
    TINY --init part.pth | part.pth was trained in another network than this model's backbone
    TINY --resume ours.pth | cannot resume ours.pth
    TINY --set train_dataloader.sampler.type=DefaultSampler | train_dataloader.sampler: .*expected type='KeySampler'
"""


@pytest.fixture(autouse=True)
def in_room(fault_room, monkeypatch):
    monkeypatch.chdir(fault_room)


@pytest.mark.parametrize(("words", "said"), rows(CONFIGS + COMMAND_LINES + DATA))
def test_nothing_is_touched(words, said, fault_room, capsys):
    expect(fault_room, words, said, capsys)


@pytest.mark.parametrize(("words", "said"), [row for row in rows(WEIGHTS) if "p0.png" not in row.id])
def test_weights_are_opened_before_anything_is_built(words, said, fault_room, capsys):
    expect(fault_room, words, said, capsys)


@pytest.mark.parametrize(("words", "said"), rows(AFTER_THE_MODEL))
def test_what_shows_in_the_model_leaves_a_log_alone(words, said, fault_room, capsys, tmp_path):
    expect(fault_room, f"{words} --work-dir {tmp_path / 'work'}", said, capsys)
    assert not list(tmp_path.rglob("*.pth"))


def test_too_few_images_for_two_processes_are_told_with_the_numbers(fault_room, monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = "found 9 images for a batch of 5 on each of 2 processes: not one full batch"
    expect(fault_room, "TINY --launcher pytorch --batch-size 5", said, capsys)


def test_what_is_right_passes_and_images_are_read(fault_room, tmp_path):
    """The promises above are not those of a run that never could begin."""
    with images_opened() as opened:
        words = ["train", "tiny.py", "--data-root", "photos", "--work-dir", str(tmp_path / "work")]
        assert main([*words, "--set", "train_dataloader.dataset.depth_range=file"]) == 0
    assert len(set(opened)) == 8 and list(tmp_path.rglob("epoch_1.pth"))  # two batches of four of the nine


@pytest.mark.parametrize("changes", [["--batch-size", "3"], ["--set", "train_dataloader.dataset.limit=6"]])
def test_a_last_batch_of_several_images_may_be_kept(changes, fault_room):
    options = {"train_dataloader.drop_last": False}
    settings = settings_of(["tiny.py", "--data-root", "photos", *changes])
    cfg = run_config(replace(settings, options={**settings.options, **options}))
    assert check_images(cfg).paths


def test_a_warm_up_longer_than_the_run_is_told(fault_room, tmp_path, capsys):
    words = ["train", "tiny.py", "--data-root", "photos", "--work-dir", str(tmp_path)]
    assert main([*words, "--set", "default_hooks.lr.schedule.warmup_epochs=50"]) == 0
    said = " ".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert re.search(r"the warm-up of 50 epochs is longer than the run of 1 epoch: the peak rate .* never", said)


class Numbers:
    """A data set of as many images as any batch takes."""

    metainfo: dict = {}

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index):
        return index

    def get_data_info(self, index: int) -> dict:
        return dict(width=60, height=50)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.det] if name.startswith("transfer") else []) for name in shipped_configs()],
)
def test_every_config_does_without_worker_processes(name, fault_room):
    """As in a debugger; what only workers have may be set, in any of its loaders."""
    cfg = load_config(name)
    loaders = [key for key in LOADERS if cfg.get(key)]
    for key in loaders:
        cfg[key].update(num_workers=0, persistent_workers=True, prefetch_factor=4, timeout=30)
    if is_pretraining(cfg):
        complete_config(cfg)
    settle_workers(cfg)
    assert loaders
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmdet")):
        for key in loaders:
            loader = DenseRunner.build_dataloader({**cfg[key], "dataset": Numbers()})
            assert loader.num_workers == 0 and not loader.persistent_workers
