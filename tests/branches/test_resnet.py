import copy

import pytest
import torch
import torchvision
from torch import nn

from densessl.branches.resnet import ResNet
from densessl.branches.sync_bn import SyncBN
from densessl.registry import MODELS

ALL = (0, 1, 2, 3)
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def torchvision_maps(model: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    x, maps = model.maxpool(model.relu(model.bn1(model.conv1(x)))), []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        maps.append(x)
    return maps


@pytest.mark.parametrize("depth", [18, 50])
def test_equals_torchvision_bit_for_bit(depth):
    reference = getattr(torchvision.models, f"resnet{depth}")()
    state = {key: value for key, value in reference.state_dict().items() if not key.startswith("fc.")}
    ours = ResNet(depth, out_indices=ALL)
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    for mode in (True, False):  # the training pass first, so that evaluation compares the running statistics too
        for found, expected in zip(ours.train(mode)(IMAGES), torchvision_maps(reference.train(mode), IMAGES)):
            assert torch.equal(found, expected)


@pytest.mark.det
@pytest.mark.parametrize("depth, norm_eval", [(18, True), (50, False)])
def test_equals_mmdet_bit_for_bit(depth, norm_eval):
    options = {"depth": depth, "out_indices": (1, 3), "frozen_stages": 1, "norm_eval": norm_eval}
    ours, theirs = ResNet(**options), MODELS.build({"type": "mmdet.ResNet", "style": "pytorch", **options})
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    for mode in (True, False):
        ours.train(mode), theirs.train(mode)
        modes = [[m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d)] for model in (ours, theirs)]
        assert modes[0] == modes[1]
        for found, expected in zip(ours(IMAGES), theirs(IMAGES)):
            assert torch.equal(found, expected)
    trainable = [[p.requires_grad for p in model.parameters()] for model in (ours, theirs)]
    assert trainable[0] == trainable[1]


@pytest.mark.parametrize("depth", [34, 101])
def test_keys_and_sizes_of_the_other_depths(depth):
    with torch.device("meta"):
        reference = getattr(torchvision.models, f"resnet{depth}")(num_classes=1).state_dict()
        ours = ResNet(depth).state_dict()
    expected = {key: value.shape for key, value in reference.items() if not key.startswith("fc.")}
    assert {key: value.shape for key, value in ours.items()} == expected


@pytest.mark.parametrize("depth, expansion", [(18, 1), (50, 4)])
def test_narrow_network_states_its_maps(depth, expansion):
    model = ResNet(depth, out_indices=(0, 2), width=8)
    assert model.out_channels == (8 * expansion, 32 * expansion)
    assert list(model.state_dict()) == list(ResNet(depth).state_dict())
    for found, channels, stride in zip(model(IMAGES), model.out_channels, model.out_strides):
        assert found.shape == (2, channels, 64 // stride, 64 // stride)


@pytest.mark.parametrize("frozen_stages", [-1, 0, 2, 4])
def test_frozen_stages_keep_weights_and_statistics(frozen_stages):
    model = ResNet(18, width=8, frozen_stages=frozen_stages).train()
    before = copy.deepcopy(model.state_dict())
    loss = model(IMAGES)[0].square().sum()
    if frozen_stages < 4:
        loss.backward()
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    assert loss.requires_grad == (frozen_stages < 4)
    parts = ["conv1,bn1", "layer1", "layer2", "layer3", "layer4"]
    for i, part in enumerate(parts):
        changed = [
            not torch.equal(value, before[key])
            for key, value in model.state_dict().items()
            if key.split(".")[0] in part.split(",")
        ]
        assert not any(changed) if i <= frozen_stages else all(changed)


def test_norm_eval_keeps_running_statistics_but_trains_weights():
    model = ResNet(18, width=8, norm_eval=True).train()
    before = copy.deepcopy(dict(model.named_buffers()))
    model(IMAGES)[0].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    assert model.training and all(p.grad is not None for p in model.parameters())


def test_norm_config_reaches_every_norm():
    cfg = {"type": "SyncBN", "eps": 1e-3, "momentum": 0.2, "requires_grad": False}
    norms = [m for m in ResNet(50, width=8, norm_cfg=cfg).modules() if isinstance(m, SyncBN)]
    assert len(norms) == 53
    assert all((m.eps, m.momentum, m.weight.requires_grad) == (1e-3, 0.2, False) for m in norms)


def test_zero_gamma_makes_blocks_identities():
    model = ResNet(50, out_indices=(0,), width=8, zero_gamma=True).eval()
    x = torch.rand(1, 32, 4, 4)
    assert torch.equal(model.layer1[1](x), x)
    assert not torch.equal(ResNet(50, width=8).eval().layer1[1](x), x)


@pytest.mark.parametrize("mode, fan", [("fan_out", 512 * 9), ("fan_in", 256 * 9)])
def test_init_mode_sets_the_scale_of_convolutions(mode, fan):
    weight = ResNet(18, init_mode=mode).layer4[0].conv1.weight
    assert weight.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.01)


def test_checkpointed_activations_change_nothing():
    plain = ResNet(18, width=8, out_indices=(1, 3))
    saving = ResNet(18, width=8, out_indices=(1, 3), with_cp=True)
    saving.load_state_dict(plain.state_dict())
    for model in (plain, saving):
        sum(found.square().sum() for found in model(IMAGES)).backward()
    for (name, value), expected in zip(saving.named_parameters(), plain.parameters()):
        assert torch.equal(value.grad, expected.grad), name
    for name, value in saving.state_dict().items():
        assert torch.equal(value, plain.state_dict()[name]), name


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"depth": 52}, r"depth=52, expected one of \[18, 34, 50, 101\]"),
        ({"out_indices": (3, 2)}, r"out_indices=\(3, 2\)"),
        ({"out_indices": (4,)}, r"out_indices=\(4,\)"),
        ({"out_indices": ()}, r"out_indices=\(\)"),
        ({"frozen_stages": 5}, "frozen_stages=5"),
        ({"init_mode": "fanout"}, "init_mode 'fanout' is unknown; did you mean fan_out"),
        ({"norm_cfg": {"type": "SynBN"}}, "norm type 'SynBN' is unknown; did you mean SyncBN"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**arguments)
