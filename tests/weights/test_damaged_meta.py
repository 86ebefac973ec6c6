"""What a file says of itself may be damaged: it is told in a line, whatever the format of the file."""

import pytest
import torch
from safetensors.torch import save_file

from densessl.branches.resnet import ResNet
from densessl.errors import CheckpointError
from densessl.weights.read import open_checkpoint, read_backbone

STATE = {f"backbone.{key}": value for key, value in ResNet(depth=18, width=8).state_dict().items()}
PIXELS = [
    dict(mean=3),
    dict(mean=["a", "b", "c"]),
    dict(mean=[[1], [2], [3]]),
    dict(mean=[float("nan")] * 3),
    dict(mean=[]),
    dict(mean=[0.5] * 3, std=[0, 0, 0]),
    dict(channel_order="GBR"),
    dict(channel_order=[1]),
]


@pytest.mark.parametrize("pixels", PIXELS, ids=str)
def test_statistics_of_pixels_that_cannot_be(pixels, tmp_path):
    about = {"densessl": {"backbone": dict(type="ResNet", depth=18, width=8), "normalize": pixels}}
    state = {f"online.{key}": value for key, value in STATE.items()}
    torch.save({"state_dict": state, "meta": about}, tmp_path / "a.pth")
    torch.save({"state_dict": STATE, "meta": {"fingerprint": pixels}}, tmp_path / "b.pth")
    for name in ("a.pth", "b.pth"):
        with pytest.raises(CheckpointError, match=next(reversed(pixels))):
            read_backbone(tmp_path / name)


@pytest.mark.parametrize("text", ["{", "[" * 100_000], ids=["cut", "deep"])
def test_metadata_of_a_safetensors_file_that_is_no_json(text, tmp_path):
    save_file(STATE, tmp_path / "a.safetensors", {"densessl": text})
    with pytest.raises(CheckpointError, match=r"a\.safetensors: its metadata 'densessl' is no JSON"):
        open_checkpoint(tmp_path / "a.safetensors")


HEADERS = [b"", b"\xff" * 8 + b"{}", b"\2" + b"\0" * 7 + b"{}", b"\4" + b"\0" * 7 + b"\xff\xfe{}"]


@pytest.mark.parametrize("content", HEADERS)
def test_headers_of_safetensors_files_that_are_none(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        open_checkpoint(tmp_path / "a.safetensors")
