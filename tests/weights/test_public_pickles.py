"""Files that would make something happen when they are read: refused, and nothing has happened."""

import contextlib
import io
import os
import pickle
import pickletools
import runpy
import sys
import tarfile
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest
import torch

from densessl.errors import CheckpointError, ExportError, UnsafeCheckpointError
from densessl.weights.io.checkpoints import load_weights
from densessl.weights.io.torch_files import load_content
from densessl.weights.read import open_checkpoint, read_backbone
from tests.weights.public import resnet

ROOT = Path(__file__).parents[2]


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


class Result(Call):
    """What that call gives is called in turn."""

    def __call__(self):
        raise NotImplementedError


def make(place: Path) -> Call:
    return Call(os.mkdir, str(place))


def evaluate(place: Path) -> Call:
    return Call(eval, f"__import__('os').mkdir({str(place)!r})")


def touch(place: Path) -> Call:
    return Call(Path.touch, place)


def run(place: Path) -> Call:
    return Call(exec, f"open({str(place)!r}, 'w')")


def by_getattr(place: Path) -> Call:
    """A name that may be read gives way to one that may not."""
    return Call(Result(getattr, Path, "touch"), place)


def object_array(place: Path) -> np.ndarray:
    return np.array([make(place), 1], dtype=object)


def object_scalar(place: Path) -> Call:
    """numpy's scalar of the type object takes any."""
    return Call(np._core.multiarray.scalar, np.dtype(object), make(place))


def built(place: Path) -> "Built":
    return Built(place)


class Built:
    """Its state is what happens."""

    def __init__(self, place: Path):
        self.place = place

    def __reduce__(self):
        return Call, (print,), {"inside": make(self.place)}


PAYLOADS = [make, evaluate, touch, run, by_getattr, object_array, object_scalar, built]


def raw(content, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def zipped(content, path: Path) -> None:
    torch.save(content, path)


def legacy(content, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def tar(content, path: Path) -> None:
    """As PyTorch 0.1 wrote: three pickles in a tar."""
    with tarfile.open(path, "w") as archive:
        for name, part in {"storages": 0, "tensors": 0, "pickle": content}.items():
            data = pickle.dumps(part, protocol=2)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


FILES = [(raw, "x.pkl"), (raw, "x.pth"), (zipped, "x.pth.tar"), (zipped, "x.pkl"), (legacy, "x.pth"), (tar, "x.tar")]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize(("write", "name"), FILES, ids=[f"{write.__name__} {name}" for write, name in FILES])
@pytest.mark.parametrize("place", ["beside", "inside"])
def test_nothing_happens(tmp_path, payload, write, name, place, capsys):
    marker = tmp_path / "marker"
    state = {"conv1.weight": np.ones(2, np.float32) if write is raw else torch.ones(2)}
    evil = payload(marker)
    content = dict(state_dict=state, extra=[evil]) if place == "beside" else dict(state_dict=state | {"x": evil})
    write(content, tmp_path / name)
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    for words in ([], ["--drop-objects"]):
        assert main([str(tmp_path / name), str(tmp_path / "new.pth"), *words]) == 2
        assert name in capsys.readouterr().err
    for read in (load_content, load_weights, open_checkpoint, read_backbone):
        try:
            read(tmp_path / name)
        except ValueError as error:  # UnsafeCheckpointError and ExportError are some
            assert name in str(error)
    assert not marker.exists() and not (tmp_path / "new.pth").exists()


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_payloads_work(tmp_path, payload):
    """Without this the tests above would pass on duds."""
    with contextlib.suppress(TypeError):
        pickle.loads(pickle.dumps([payload(tmp_path / "marker")]))
    assert (tmp_path / "marker").exists()


def test_what_is_refused_says_for_what(tmp_path):
    raw([make(tmp_path / "marker")], tmp_path / "x.pkl")
    with pytest.raises(UnsafeCheckpointError, match=r"x\.pkl: names posix\.mkdir, .*Save the weights as"):
        load_content(tmp_path / "x.pkl")
    raw(dict(model={"a": np.array([1, "b"], dtype=object)}), tmp_path / "objects.pkl")
    with pytest.raises(UnsafeCheckpointError, match=r"objects\.pkl holds an array of objects, expected numbers"):
        load_content(tmp_path / "objects.pkl")
    for write in (zipped, legacy):
        write([np.arange(2), evaluate(tmp_path / "marker")], tmp_path / "x.pth")
        with pytest.raises(UnsafeCheckpointError, match=r"x\.pth holds the object `eval`; .*--drop-objects"):
            load_content(tmp_path / "x.pth")
        write([evaluate(tmp_path / "marker"), make(tmp_path / "marker")], tmp_path / "x.pth")
        with pytest.raises(UnsafeCheckpointError, match=r"`posix\.mkdir`; .* no option reads past it$"):
            load_content(tmp_path / "x.pth", drop_objects=True)


def test_what_contains_itself_is_read_once(tmp_path):
    around, meta, weights = [torch.ones(1)], {"epoch": 3}, {"w": torch.ones(2)}
    around.append(around)
    meta["meta"] = meta
    torch.save(dict(state_dict=weights, ema=weights, x=(around, around)), tmp_path / "x.pth")
    opened = open_checkpoint(tmp_path / "x.pth")
    assert list(opened.state) == ["w"] and list(opened.rest) == ["ema.w", "x.0.0", "x.1.0"]
    for no_data in (meta, Namespace(lr=0.1)):
        torch.save(dict(state_dict=weights, meta=no_data), tmp_path / "x.pth")
        assert open_checkpoint(tmp_path / "x.pth").meta == {}
    raw(dict(model=around), tmp_path / "x.pkl")
    with pytest.raises(CheckpointError, match=r"x\.pkl holds a list or dict that contains itself"):
        open_checkpoint(tmp_path / "x.pkl")


class Network:
    def __init__(self):
        self.width = 64


def saved(content: dict, module: str, kind: type) -> bytes:
    """What torch.save writes where ``module.AttributeDict`` can be imported, and is that class."""
    names = module.split(".")
    made = {".".join(names[: i + 1]): ModuleType(names[i]) for i in range(len(names))}
    made[module].AttributeDict = kind
    file = io.BytesIO()
    with patch.dict(sys.modules, made):
        torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("module", ["pytorch_lightning.utilities.parsing", "lightning.fabric.utilities.data"])
def test_lightnings_own_dict_is_passed_over(tmp_path, module):
    options = type("AttributeDict", (dict,), {"__module__": module})
    own = resnet(depth=18)
    state = {f"backbone.{key}": value for key, value in own.items()} | {
        "projection_head.layers.0.weight": torch.ones(2)
    }
    content = dict(state_dict=state, hyper_parameters=options(lr=0.1, path=Path("/data"), sizes=[1]))
    (tmp_path / "last.ckpt").write_bytes(saved(content, module, options))
    found, _ = read_backbone(tmp_path / "last.ckpt")
    assert all(torch.equal(found[key], value) for key, value in own.items())


@pytest.mark.parametrize("write", [zipped, legacy])
def test_objects_of_any_class_are_dropped_where_that_is_asked_for(tmp_path, capsys, write):
    own = resnet(depth=18)
    state = {f"backbone.{key}": value for key, value in own.items()} | {"classifier.weight": torch.ones(2)}
    content = dict(state_dict=state, hyper_parameters=dict(model=Network(), made=Call(run, tmp_path / "marker")))
    write(content, tmp_path / "last.ckpt")
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    words = [str(tmp_path / "last.ckpt"), str(tmp_path / "new.pth")]
    assert main(words) == 2 and "--drop-objects" in capsys.readouterr().err
    assert main([*words, "--drop-objects"]) == 0 and "layout of solo-learn" in capsys.readouterr().out
    found, _ = read_backbone(tmp_path / "new.pth")
    assert all(torch.equal(found[key], value) for key, value in own.items()) and not (tmp_path / "marker").exists()


def test_a_haiku_pickle_is_refused_with_what_it_names(tmp_path):
    """DeepMind's files are written by dill, which rebuilds classes."""
    named = pickle.dumps(dict(experiment_state=1), protocol=2).replace(b"}", b"cdill._dill\n_create_type\n0}", 1)
    assert any(op.name == "GLOBAL" for op, *_ in pickletools.genops(named))
    (tmp_path / "pretrain_res50x1.pkl").write_bytes(named)
    with pytest.raises(UnsafeCheckpointError, match=r"names dill\._dill\._create_type, which could run code: refused"):
        read_backbone(tmp_path / "pretrain_res50x1.pkl")


def test_haikus_resnets_are_refused_as_plain_arrays_too(tmp_path):
    place = "res_net50/~/block_group_0/~/block_0/~/conv_0"
    params = {"res_net50/~/initial_conv": dict(w=np.ones((7, 7, 3, 4))), place: dict(w=np.ones((1, 1, 4, 4)))}
    raw(dict(online_params=params, online_state={}), tmp_path / "byol.pkl")
    with pytest.raises(ExportError, match=r"byol\.pkl that PyTorch could run: .* Haiku, .* pad differently \(SAME\)"):
        read_backbone(tmp_path / "byol.pkl")
