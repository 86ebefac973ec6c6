import argparse
import os
import pickle
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file
from torch import nn

from densessl.errors import UnsafeCheckpointError
from densessl.weights.io import torch_files as pickles
from densessl.weights.io.checkpoints import (
    find_latest_checkpoint,
    load_weights,
    read_checkpoint,
    rename,
    save_checkpoint,
    to_plain,
)
from densessl.weights.read import open_checkpoint

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2, dtype=torch.float64)}


def same(actual, expected):
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[k], expected[k]) and actual[k].dtype == expected[k].dtype for k in expected)


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_the_bomb_works(tmp_path):
    """Without this the tests below would pass on a dud."""
    torch.save(Bomb(tmp_path / "marker"), tmp_path / "bomb.pth")
    torch.load(tmp_path / "bomb.pth", weights_only=False)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("read", [load_weights, read_checkpoint])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("env", [None, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_a_payload_is_refused_and_not_run(tmp_path, monkeypatch, read, legacy, env):
    if env:
        monkeypatch.setenv(env, "1")
    content = {"meta": {}, "state_dict": {"w": torch.ones(2)}, "extra": [Bomb(tmp_path / "marker")]}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeCheckpointError, match=r"evil.pth holds the object `\S*mkdir`; .* it was not read"):
        read(tmp_path / "evil.pth")
    assert not (tmp_path / "marker").exists()


class Call:
    """Calls ``function`` when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize(
    "call",
    [
        Call(getattr, HistoryBuffer, "__init__"),
        Call(getattr, argparse.Namespace, "__init__"),
        Call(np.ndarray, (2,)),
        Call(np.dtype, "f8"),
        Call(slice, 1, 2),
        Call(HistoryBuffer, [1.0], [1]),
        argparse.Namespace(lr=0.1),
        np.float64(0.5),
        np.arange(3),
    ],
)
def test_tolerated_names_stand_for_nothing(tmp_path, call):
    torch.save({"state_dict": WEIGHTS, "extra": call}, tmp_path / "w.pth")
    with torch.serialization.safe_globals(pickles._INERT):
        assert type(pickles.torch_load(tmp_path / "w.pth")["extra"]) is pickles._Inert
    same(load_weights(tmp_path / "w.pth"), WEIGHTS)
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint(tmp_path / "w.pth")


def test_a_tolerated_name_opens_no_way_to_others(tmp_path):
    evil = {"x": Call(getattr, Bomb(tmp_path / "marker"), "mkdir")}
    torch.save(evil, tmp_path / "evil.pth")
    with pytest.raises(UnsafeCheckpointError, match="mkdir"):
        load_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "marker").exists()


def test_a_raw_pickle_is_refused(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "marker")))
    with pytest.raises(ValueError, match=r"evil.pth"):
        load_weights(tmp_path / "evil.pth")
    assert not (tmp_path / "marker").exists()


def test_torchscript_is_refused(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    with pytest.raises(ValueError, match=r"script.pt"):
        load_weights(tmp_path / "script.pt")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": w, "optimizer": {"state": {}}, "args": argparse.Namespace(lr=0.1)},
        lambda w: {"model": w, "state_dict": None, "model_state_dict": {}},
    ],
)
def test_wrappers_are_taken_off(tmp_path, wrap):
    torch.save(wrap(WEIGHTS), tmp_path / "w.pth")
    same(load_weights(str(tmp_path / "w.pth")), WEIGHTS)
    same(open_checkpoint(str(tmp_path / "w.pth")).state, WEIGHTS)


def test_safetensors(tmp_path):
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    loaded = load_weights(tmp_path / "w.safetensors")
    same(dict(sorted(loaded.items())), dict(sorted(WEIGHTS.items())))
    (tmp_path / "bad.safetensors").write_bytes(b"no header")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_weights(tmp_path / "bad.safetensors")


def test_checkpoints_of_mmengine_are_read_without_their_log_buffers(tmp_path):
    hub = {
        "log_scalars": OrderedDict(loss=HistoryBuffer([1.0, 2.0], [1, 1])),
        "runtime_info": {"best": np.float64(0.3)},
    }
    content = {"meta": {"at": np.arange(3)}, "state_dict": OrderedDict(WEIGHTS), "message_hub": hub}
    torch.save(content, tmp_path / "epoch_1.pth")
    same(load_weights(tmp_path / "epoch_1.pth"), WEIGHTS)
    with pytest.raises(UnsafeCheckpointError):
        read_checkpoint(tmp_path / "epoch_1.pth")


def test_key_chooses_among_several(tmp_path):
    torch.save({"teacher": WEIGHTS, "student": {}}, tmp_path / "w.pth")
    same(load_weights(tmp_path / "w.pth", key="teacher"), WEIGHTS)
    with pytest.raises(ValueError, match=r"'teacher': 'dict', 'student': 'dict'.*key="):
        load_weights(tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"no entry 'ema'; it holds \['teacher', 'student'\]"):
        load_weights(tmp_path / "w.pth", key="ema")


@pytest.mark.parametrize("content", [torch.ones(3), [WEIGHTS], {}, {"state_dict": {}}, {"model": {"epoch": 3}}])
def test_what_is_no_weights_is_an_error(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w.pth: expected"):
        load_weights(tmp_path / "w.pth")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        load_weights(tmp_path / "absent.pth")
    with pytest.raises(FileNotFoundError, match="download it first"):
        load_weights("https://example.org/r50.pth")
    torch.save(WEIGHTS, tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint"):
        (tmp_path / "w.pth").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"w.pth"):
            load_weights(tmp_path / "w.pth")


def test_save_and_read_back(tmp_path):
    content = {
        "meta": {"epoch": np.int64(3), "score": np.float32(0.5), "name": "x", "ok": True, "none": None, 4: (1, 2.5)},
        "state_dict": nn.BatchNorm1d(3).state_dict(),
        "optimizer": {"state": {0: {"buffer": nn.Parameter(torch.ones(2))}}, "milestones": Counter([3, 3])},
        "table": np.arange(6, dtype=np.int16).reshape(2, 3)[:, ::-1],
    }
    save_checkpoint(tmp_path / "deep" / "e.pth", content)
    read = read_checkpoint(tmp_path / "deep" / "e.pth")
    assert read["meta"] == {"epoch": 3, "score": 0.5, "name": "x", "ok": True, "none": None, 4: (1, 2.5)}
    assert type(read["meta"]["epoch"]) is int and type(read["meta"][4]) is tuple
    same(read["state_dict"], content["state_dict"])
    assert read["state_dict"]._metadata == content["state_dict"]._metadata
    assert type(read["optimizer"]["state"][0]["buffer"]) is torch.Tensor
    assert read["optimizer"]["milestones"] == Counter([3, 3])
    assert torch.equal(read["table"], torch.tensor([[2, 1, 0], [5, 4, 3]], dtype=torch.int16))
    assert os.listdir(tmp_path / "deep") == ["e.pth"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "e.pth"
    save_checkpoint(path, {"w": torch.zeros(3)})
    with pytest.raises(TypeError, match=r"checkpoint\['meta'\]\['at'\]\[1\] is a builtins.object"):
        save_checkpoint(path, {"w": torch.ones(3), "meta": {"at": [1, object()]}})

    def torn(content, file):
        file.write(b"half a checkpoint")

    with monkeypatch.context() as patch, pytest.raises(Exception):  # noqa: B017  (torch's choice)
        patch.setattr(torch, "save", torn)
        save_checkpoint(path, {"w": torch.ones(3)})

    def full(content, file):
        file.write(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(torch, "save", full)
        save_checkpoint(path, {"w": torch.ones(3)})
    same(read_checkpoint(path), {"w": torch.zeros(3)})
    assert os.listdir(tmp_path) == ["e.pth"]


def test_the_file_is_flushed_before_it_is_moved_and_the_folder_after(tmp_path, monkeypatch):
    calls, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: (calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))
    )
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    save_checkpoint(tmp_path / "e.pth", {"w": torch.ones(1)})
    assert calls == [f".e.pth.{os.getpid()}.tmp", "replace", tmp_path.name]


def test_to_plain_drops_or_names_what_it_cannot_keep():
    value = {"f": print, "deep": {"x": np.float64(1), "lambda": lambda: 0}, "keep": 2}
    assert to_plain(value, drop=True) == {"deep": {"x": 1.0}, "keep": 2}
    with pytest.raises(TypeError, match=r"hub\['f'\] is a builtins.builtin_function_or_method"):
        to_plain(value, "hub")
    for odd in (np.longdouble(1), np.array(["a"], dtype=object), {1, 2}):
        with pytest.raises(TypeError):
            to_plain(odd)


def test_latest_follows_the_note_even_in_a_moved_folder(tmp_path):
    assert find_latest_checkpoint(tmp_path) is None
    for name in ("epoch_2.pth", "epoch_10.pth"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(10**9, len(name) * 10**9))
    (tmp_path / "best_map_epoch_99.pth").touch()
    (tmp_path / "last_checkpoint").write_text(f"{tmp_path / 'epoch_2.pth'}\n")
    assert find_latest_checkpoint(str(tmp_path)) == tmp_path / "epoch_2.pth"
    (tmp_path / "last_checkpoint").write_text("/old/place/epoch_2.pth")
    assert find_latest_checkpoint(tmp_path) == tmp_path / "epoch_2.pth"
    for lost in ("", "/old/place/epoch_11.pth"):
        (tmp_path / "last_checkpoint").write_text(lost)
        assert find_latest_checkpoint(tmp_path) == tmp_path / "epoch_10.pth"
    for file in tmp_path.glob("epoch_*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"epoch_11.pth, which does not exist"):
        find_latest_checkpoint(tmp_path)


def test_rename_keeps_order_and_metadata():
    weights = nn.Linear(1, 1).state_dict()
    renamed = rename({f"module.{k}": v for k, v in weights.items()}, [(r"^module\.", ""), ("^", "fc.")])
    assert list(renamed) == ["fc.weight", "fc.bias"]
    assert rename(weights, [])._metadata == weights._metadata
