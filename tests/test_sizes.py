"""What "auto" stands for: batch, queues and epochs that suit the images there are."""

import pytest

from densessl.errors import SettingError
from densessl.pretraining import settle_sizes
from densessl.runs import RunSettings, run_config
from densessl.sizes import fitting_batch, fitting_epochs, fitting_queue
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


def test_epochs_make_ten_thousand_steps_within_bounds():
    sizes = {(1_280_000, 1024): 20, (64_000, 64): 20, (3000, 64): 213, (100, 64): 800}
    assert {key: fitting_epochs(*key) for key in sizes} == sizes


def settled(photos, name="small/mocov2_r18", launcher="none", **options):
    settings = dict(data_root=str(photos), batch_size=options.pop("batch_size", None), launcher=launcher)
    cfg = run_config(RunSettings(name, epochs=options.pop("epochs", None), **settings, options=options))
    return cfg, settle_sizes(cfg)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_photos(tmp_path_factory.mktemp("photos"), 20, 8, 8)


def test_all_are_settled_by_the_images_and_told(photos):
    cfg, lines = settled(photos, batch_size="auto", epochs="auto", **{"model.objectives.0.length": "auto"})
    assert (cfg.train_dataloader.batch_size, cfg.model.objectives[0].length, cfg.train_cfg.max_epochs) == (20, 40, 800)
    assert lines == [
        "batch_size='auto': 20 images per process, of 20 in all",
        "MoCo: length='auto': a queue of 40 keys",
        "max_epochs='auto': 800 epochs of 1 step(s)",
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
