"""What "auto" stands for: batch, queues and epochs that suit the images there are."""

import pytest

from densessl.errors import SettingError
from densessl.pretraining import settle_sizes
from densessl.runs import RunSettings, run_config
from densessl.sizes import fitting_batch, fitting_epochs, fitting_queue
from densessl.weights.io.checkpoints import save_checkpoint
from tests.photos import write_photos


@pytest.mark.parametrize(
    ("images", "factor", "largest", "batch"),
    [(1000, 1, 128, 128), (100, 1, 128, 100), (1000, 1, None, 64), (100, 4, 128, 25), (5, 2, 128, 2)],
)
def test_a_batch_is_the_recipe_s_or_all_there_are(images, factor, largest, batch):
    assert fitting_batch(images, factor, largest) == batch


def test_one_image_a_batch_is_too_few():
    with pytest.raises(SettingError, match=r"found 3 images for 2 batches a step, expected at least two"):
        fitting_batch(3, 2)


def test_a_queue_has_at_most_half_of_the_images_and_at_least_two_steps():
    sizes = {(1_280_000, 256): 65536, (3000, 64): 1024, (2048, 64): 1024, (2047, 64): 512, (100, 64): 128, (1, 2): 4}
    assert {key: fitting_queue(*key) for key in sizes} == sizes


@pytest.mark.parametrize(
    ("images", "step", "epochs", "steps"),
    [
        (50, 50, 200, 200),
        (1000, 64, 200, 3000),
        (10_000, 64, 64, 9984),
        (118_000, 64, 20, 36_860),
        (1_280_000, 64, 5, 100_000),
        (1_280_000, 1024, 20, 25_000),
        (14_000_000, 64, 1, 218_750),
        (1, 2, 200, 200),  # as many steps as epochs, even where a step takes more images than there are
    ],
)
def test_epochs_and_steps_are_bounded_both_ways(images, step, epochs, steps):
    found = fitting_epochs(images, step)
    assert (found, found * max(1, images // step)) == (epochs, steps)
    row = f"{images:11,}  {epochs:6}  {steps:7,}"
    assert step != 64 or images > 2e6 or row in fitting_epochs.__doc__


def settled(photos, name="small/mocov2_r18", launcher="none", **options):
    settings = dict(data_root=str(photos), batch_size=options.pop("batch_size", None), launcher=launcher)
    cfg = run_config(RunSettings(name, epochs=options.pop("epochs", None), **settings, options=options))
    return cfg, settle_sizes(cfg)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 20, 8, 8)


def test_all_are_settled_by_the_images_and_told(photos):
    cfg, lines = settled(photos, batch_size="auto", epochs="auto", **{"model.objectives.0.length": "auto"})
    assert (cfg.train_dataloader.batch_size, cfg.model.objectives[0].length, cfg.train_cfg.max_epochs) == (20, 40, 200)
    assert lines == [
        "batch_size='auto': 20 images per process, of 20 in all",
        "MoCo: length='auto': a queue of 40 keys",
        "max_epochs='auto': 200 epochs of 1 step, 200 steps in all",
    ]
    assert "largest_batch" not in cfg.train_dataloader and settle_sizes(cfg) == []


def test_the_recipe_s_batch_is_the_largest(photos):
    cfg, _ = settled(photos, batch_size="auto", **{"train_dataloader.batch_size": "auto"})
    assert cfg.train_dataloader.batch_size == 20
    for largest, batch in ((8, 8), (64, 20)):
        cfg = run_config(RunSettings("small/mocov2_r18", data_root=str(photos), batch_size="auto"))
        cfg.train_dataloader.largest_batch = largest
        settle_sizes(cfg)
        assert cfg.train_dataloader.batch_size == batch


def test_accumulation_processes_and_a_limit_count(photos, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    options = {"optim_wrapper.accumulative_counts": 2, "train_dataloader.dataset.limit": 17}
    options["model.objectives.0.length"] = "auto"
    cfg, _ = settled(photos, batch_size="auto", launcher="pytorch", **options)
    assert cfg.train_dataloader.batch_size == 4  # 17 // (2 x 2)
    assert cfg.model.objectives[0].length == 32  # two steps of 4 x 2 x 2
    cfg, _ = settled(photos, batch_size="auto", **options)  # no launcher: one process, whatever the environment says
    assert cfg.train_dataloader.batch_size == 8


def test_numbers_are_left_alone_and_images_not_listed(tmp_path):
    cfg, lines = settled(tmp_path / "nowhere", batch_size=7, epochs=3)
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs, lines) == (7, 3, [])
    assert "largest_batch" not in cfg.train_dataloader


def test_a_queue_of_swav_is_settled_too(photos):
    cfg, lines = settled(photos, "swav_r50", batch_size=4, **{"model.objectives.0.queue_length": "auto"})
    assert cfg.model.objectives[0].queue_length == 8 and "queue_length='auto': a queue of 8 keys" in lines[0]


def test_processes_of_both_launchers_are_counted(photos, monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    assert settled(photos, batch_size="auto", launcher="slurm")[0].train_dataloader.batch_size == 5


def test_a_resumed_run_goes_on_with_what_was_settled_then(photos, tmp_path, monkeypatch):
    """Even with more images, or another number of processes."""
    first, _ = settled(photos, batch_size="auto", epochs="auto", **{"model.objectives.0.length": "auto"})
    save_checkpoint(tmp_path / "epoch_1.pth", {"meta": {"run": {"settled": first.settled.to_dict()}}})
    more = write_photos(tmp_path / "more", 60, 8, 8)
    automatic = dict(batch_size="auto", epochs="auto", options={"model.objectives.0.length": "auto"})
    for resume in (True, str(tmp_path / "epoch_1.pth")):
        cfg = run_config(
            RunSettings("small/mocov2_r18", data_root=str(more), work_dir=str(tmp_path), resume=resume, **automatic)
        )
        lines = settle_sizes(cfg)
        assert (cfg.train_dataloader.batch_size, cfg.model.objectives[0].length) == (20, 40)
        assert cfg.train_cfg.max_epochs == 200 and cfg.settled == first.settled
        assert [line.endswith("as in the run that is resumed") for line in lines] == [True, True, True]
    monkeypatch.setenv("WORLD_SIZE", "2")
    cfg.launcher, cfg.train_dataloader.batch_size = "pytorch", "auto"
    settle_sizes(cfg)
    assert cfg.train_dataloader.batch_size == 10  # on each of two processes


def test_what_a_checkpoint_says_of_sizes_is_not_trusted(photos, tmp_path):
    for wrong in ({"train_dataloader.batch_size": "8"}, {"train_dataloader.batch_size": -8}, [8], None):
        save_checkpoint(tmp_path / "epoch_1.pth", {"meta": {"run": {"settled": wrong}}})
        cfg = run_config(RunSettings("small/mocov2_r18", data_root=str(photos), work_dir=str(tmp_path), resume=True))
        cfg.train_dataloader.batch_size = "auto"
        settle_sizes(cfg)
        assert cfg.train_dataloader.batch_size == 20
