"""Wrong arguments of Python calls: each is answered with a sentence, not with an error from deep inside."""

import re

import pytest
import torch

from densessl import ObjectiveOnMaps, TwoBranch, load_backbone, read_backbone
from densessl.branches.resnet import ResNet
from densessl.errors import CheckpointError, SettingError
from densessl.geometry import ViewGeometry
from densessl.horizon import Horizon
from densessl.weights.fingerprint import Fingerprint

ONLINE = dict(backbone=dict(type="ResNet", depth=18, width=8))
SIMSIAM = dict(type="SimSiam", hidden=8, dim=8)


def two_branch(*objectives):
    return TwoBranch(ONLINE, list(objectives), dict(kind="stop_gradient"))


CALLS = {
    "objectives: found []": lambda: two_branch(),
    "objectives: found {'type': 'SimSiam'": lambda: TwoBranch(ONLINE, SIMSIAM),
    "objective: found 3, expected dict(type=…, …), with a type of BYOL": lambda: two_branch(3),
    "objective SimSiam: argument 'hiden' is unknown; did you mean hidden?": lambda: two_branch(
        dict(type="SimSiam", hiden=8)
    ),
    "objective SimSiam: argument 'xyz' is unknown; known: ": lambda: ObjectiveOnMaps(dict(type="SimSiam", xyz=8), 8),
    "found 3 as the source of weights": lambda: load_backbone(ResNet(depth=18, width=8), 3),
    "model: found None, expected the module": lambda: load_backbone(None, {}),
    "found None as the source of weights": lambda: read_backbone(None),
    "boxes: found the shape (2, 3), expected (N, 4)": lambda: ViewGeometry.from_crops(torch.ones(2, 3), (8, 8), (9, 9)),
    "boxes[1]: found [5.0, 0.0, 2.0, 4.0], expected x0 < x1": lambda: ViewGeometry.from_crops(
        torch.tensor([[0.0, 0.0, 2.0, 4.0], [5.0, 0.0, 2.0, 4.0]]), (8, 8), (9, 9)
    ),
    "epochs: found 0, expected more than 0": lambda: Horizon.of(num_images=9, batch_size=3, epochs=0),
}


@pytest.mark.parametrize("said", CALLS)
def test_a_wrong_argument_is_told_in_words(said):
    with pytest.raises(SettingError, match=re.escape(said)):
        CALLS[said]()


FACTS = {
    "depth: found 1000000000, expected 1 to 1,000": dict(depth=10**9),
    "width: found -3, expected 1 to": dict(width=-3),
    "eps: found nan, expected a finite number": dict(eps=float("nan")),
    "mean and std of the pixels: found 3 and 2 numbers": dict(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0]),
}


@pytest.mark.parametrize("said", FACTS)
def test_facts_of_a_file_that_no_network_can_have_are_refused(said):
    with pytest.raises(CheckpointError, match=re.escape(said)):
        Fingerprint.from_dict(dict(arch="resnet", **FACTS[said]))


def test_so_are_those_of_a_checkpoint_that_describes_its_backbone():
    backbone = dict(type="ResNet", depth=18, width=8, norm_cfg=dict(type="BN", eps=float("nan")))
    state = {f"online.backbone.{key}": value for key, value in ResNet(depth=18, width=8).state_dict().items()}
    with pytest.raises(CheckpointError, match="eps: found nan"):
        read_backbone({"state_dict": state, "meta": {"densessl": {"backbone": backbone, "normalize": None}}})
    unequal = dict(mean=[1.0, 2.0, 3.0], std=[1.0], channel_order="RGB")
    with pytest.raises(CheckpointError, match="found 3 and 1 numbers"):
        sound = dict(type="ResNet", depth=18, width=8)
        read_backbone({"state_dict": state, "meta": {"densessl": {"backbone": sound, "normalize": unequal}}})
