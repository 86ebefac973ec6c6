"""Images that cannot be read: replaced by the same others in every run, listed, and counted against a budget."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import densessl
from densessl.budget import allowed
from densessl.data.batch import collate_views
from densessl.data.dataset import UnlabelledImages
from densessl.data.decode import UnreadableImage
from densessl.data.sampler import KeySampler
from densessl.errors import DataError, SettingError
from tests.photos import write_photos

VIEWS = [dict(size=16, scale=(0.2, 1.0), hflip=0.5)]
TINY = dict(method="pixpro", backbone="resnet18", size=32, batch_size=4, epochs=2, workers=0, precision="fp32", seed=3)
NARROW = {"model.objectives.0.hidden": 16, "model.objectives.0.dim": 8, "model.online.backbone.width": 8}
NARROW["default_hooks.checkpoint.interval"] = 1


@pytest.fixture
def photos(tmp_path):
    """Twelve images; 3 is cut short, 7 is a web page, and the list also names one that is missing."""
    folder = write_photos(tmp_path / "photos", 12)
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:-40])
    (folder / "7.png").write_text("<!DOCTYPE html>")
    return folder


def dataset(source, **options):
    return UnlabelledImages(str(source), VIEWS, bad_images="replace", **options)


def test_a_bad_image_is_replaced_by_another_sample_of_the_epoch(photos):
    data = dataset(photos)
    bad = {index for index in range(12) if data.path(index).name in ("3.png", "7.png")}
    used = set()
    for epoch in range(6):
        for index in range(12):
            sample = data[epoch, index]
            assert (sample.key == (epoch, index)) == (index not in bad)
            if index in bad:
                assert sample.key[0] == epoch and sample.key[1] not in bad
                assert sample.bad[0].index == index and sample.bad[0].path == str(data.path(index))
                same = data[sample.key]
                assert not same.bad and np.array_equal(same.views[0], sample.views[0])
                used.add(sample.key[1])
            else:
                assert not sample.bad
    assert len(used) > 3  # not one image in the place of all


def test_any_number_of_workers_makes_the_same_batches(photos):
    def batches(workers: int) -> list:
        data = dataset(photos)
        loader = DataLoader(data, 4, sampler=KeySampler(data, seed=5), num_workers=workers, collate_fn=collate_views)
        return list(loader)

    alone, together = batches(0), batches(2)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.views[0], other.views[0]) and torch.equal(one.keys, other.keys)
        assert one.bad == other.bad
    assert sum(len(batch.bad) for batch in alone) >= 2


def test_without_a_hook_that_counts_a_bad_image_is_an_error(photos):
    data = UnlabelledImages(str(photos), VIEWS)
    with pytest.raises(UnreadableImage, match=r"3\.png: truncated"):
        [data[0, index] for index in range(12)]


def test_a_data_set_without_one_good_image_ends(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"none of 32 images drawn .* can be read; the last: .*\.png: none of JPEG"):
        dataset(tmp_path)[0, 0]


@pytest.mark.parametrize(
    ("text", "images", "most"),
    [
        *[("0.1%", 1_281_167, 1281), ("0.1%", 8, 1), ("2%", 150, 3), ("100%", 7, 7), ("0%", 9, 0), ("none", 9, 0)],
        *[("3", 9, 3), (3, 9, 3), ("0", 9, 0), (0, 9, 0), ("0.3 %", 1000, 3)],
    ],
)
def test_budgets(text, images, most):
    assert allowed(text, images) == most


@pytest.mark.parametrize("text", ["-1", "101%", "1e3", "0.1", "all", "", True, 0.5])
def test_what_is_no_budget_is_told(text):
    with pytest.raises(SettingError, match=r"--bad-images: found .*, expected a share like 0\.1%, a number"):
        allowed(text, 100)


def weights(run):
    return torch.load(run.checkpoint, weights_only=True)["state_dict"]


def test_a_run_lists_what_it_could_not_read_and_goes_on_where_it_stopped(photos, tmp_path):
    (tmp_path / "all.txt").write_text("".join(f"photos/{number}.png\n" for number in range(13)))  # 12 is missing
    settings = dict(TINY, data=tmp_path / "all.txt", bad_images="25%", options=NARROW)
    whole = densessl.pretrain(out=tmp_path / "whole", **settings)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "bad_images.jsonl").read_text().splitlines()]
    assert {line["path"].rpartition("/")[2] for line in lines} == {"3.png", "7.png", "12.png"}
    assert len(lines) == 3 and all(1 <= line["step"] <= 6 for line in lines)
    assert {line["path"][-6:]: line["reason"] for line in lines}["12.png"] == "No such file or directory"

    stopped = densessl.RunSettings(
        "pixpro_r18",
        data_root=tmp_path / "all.txt",
        work_dir=tmp_path / "half",
        batch_size=4,
        epochs=2,
        seed=3,
        bad_images="25%",
        options={"views.*.size": 32, "train_dataloader.num_workers": 0, "optim_wrapper.precision": "fp32", **NARROW},
    )
    steps = densessl.build_run(stopped).steps()
    [next(steps) for _ in range(4)]  # one epoch and a step: the checkpoint of the epoch is there
    steps.close()
    rest = densessl.pretrain(out=tmp_path / "half", **settings, resume=True)
    again = weights(rest)
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(whole).items())
    assert len((tmp_path / "half" / "bad_images.jsonl").read_text().splitlines()) == 3


def test_beyond_the_budget_the_run_stops_with_the_list(photos, tmp_path):
    with pytest.raises(
        DataError, match=r"2 of 12 images cannot be read, more than --bad-images 0.1% allows \(1\)"
    ) as error:
        densessl.pretrain(photos, out=tmp_path / "run", options=NARROW, **TINY | dict(epochs=1))
    assert error.value.exit_code == 3 and "bad_images.jsonl" in str(error.value)
    assert len((tmp_path / "run" / "bad_images.jsonl").read_text().splitlines()) == 2
