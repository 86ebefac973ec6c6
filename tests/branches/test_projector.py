import pytest
import torch
import torch.distributed as dist
from torch import nn

from densessl.branches.projector import MLP
from densessl.registry import MODELS
from tests.distributed import run_pair
from tests.objectives.toy import toy_batch, toy_model

BN = {"type": "BN"}


def parameters_of(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(
    "arguments, modules, parameters",
    [
        (  # DenseCL, MoCo v2
            {"dims": (8, 6, 4)},
            "linear0 act0 linear1",
            "linear0.weight linear0.bias linear1.weight linear1.bias",
        ),
        (  # PixPro
            {"kind": "map", "dims": (8, 6, 4), "norm": BN},
            "linear0 norm0 act0 linear1",
            "linear0.weight linear0.bias norm0.weight norm0.bias linear1.weight linear1.bias",
        ),
        (  # SimSiam
            {
                "dims": (8, 6, 6, 4),
                "norm": BN,
                "bias": False,
                "last_bias": False,
                "last_norm": True,
                "last_affine": False,
            },
            "linear0 norm0 act0 linear1 norm1 act1 linear2 norm2",
            "linear0.weight norm0.weight norm0.bias linear1.weight norm1.weight norm1.bias linear2.weight",
        ),
        (  # SimSiam's predictor
            {"dims": (8, 6, 4), "norm": BN, "bias": False},
            "linear0 norm0 act0 linear1",
            "linear0.weight norm0.weight norm0.bias linear1.weight linear1.bias",
        ),
        (  # CCOP
            {"dims": (8, 6, 4), "dropout": 0.1},
            "linear0 dropout0 act0 linear1",
            "linear0.weight linear0.bias linear1.weight linear1.bias",
        ),
        (  # a linear predictor
            {"dims": (8, 4), "bias": False},
            "linear0",
            "linear0.weight linear0.bias",
        ),
    ],
)
def test_rows_of_methods(arguments, modules, parameters):
    model = MLP(**arguments)
    assert [name for name, _ in model.named_children()] == modules.split()
    assert parameters_of(model) == parameters.split()
    assert model.out_channels == 4


@pytest.mark.parametrize("norm", [None, BN, {"type": "LN"}], ids=str)
def test_on_maps_is_the_vector_mlp_of_each_cell(norm):
    options = {"dims": (5, 7, 3), "norm": norm, "last_norm": norm is not None, "act": "gelu"}
    on_maps, on_vectors = MLP(kind="map", **options).double(), MLP(kind="vec", **options).double()
    for own, other in zip(on_vectors.parameters(), on_maps.parameters()):
        own.data.copy_(other.data.view_as(own))
    for model in (on_maps, on_vectors):
        for module in model.modules():
            if hasattr(module, "eps"):
                module.eps = 1e-6  # the two layer norms' defaults differ
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    expected = on_vectors(x.permute(0, 2, 3, 1).reshape(-1, 5)).view(2, 4, 3, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(on_maps(x), expected, rtol=0, atol=1e-12)


def test_output_by_hand():
    model = MLP(dims=(3, 4, 2))
    x = torch.randn(5, 3)
    hidden = (x @ model.linear0.weight.T + model.linear0.bias).clamp(min=0)
    torch.testing.assert_close(model(x), hidden @ model.linear1.weight.T + model.linear1.bias)


@pytest.mark.parametrize("kind", ["vec", "map"])
@pytest.mark.parametrize("init, gain", [("torch", (1 / 3) ** 0.5), ("kaiming", 2**0.5), ("normal", None)])
def test_initialisation(kind, init, gain):
    model = MLP(kind=kind, dims=(128, 512, 256), init=init)
    for layer, fan_in in ((model.linear0, 128), (model.linear1, 512)):
        expected = gain / fan_in**0.5 if gain else 0.01
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.02)
        assert (layer.bias == 0).all() == (init != "torch")


def test_dropout_is_active_in_training_only():
    model, x = MLP(dims=(64, 512, 1), dropout=0.5), torch.ones(2, 64)
    assert not torch.equal(model(x), model(x))
    assert torch.equal(model.eval()(x), model(x))


def test_config():
    model = MODELS.build({"type": "MLP", "kind": "map", "dims": [4, 4]})
    assert isinstance(model.linear0, nn.Conv2d)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"kind": "maps"}, "MLP kind 'maps' is unknown; did you mean map"),
        ({"act": "rely"}, "MLP act 'rely' is unknown; did you mean relu"),
        ({"init": "kaiming_normal"}, "MLP init 'kaiming_normal' is unknown; did you mean"),
        ({"dims": (None, 4)}, r"MLP dims=\(None, 4\)"),
        ({"dims": (4,)}, r"MLP dims=\(4,\)"),
        ({"last_norm": True}, "last_norm=True, but norm is None"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLP(**arguments)


@pytest.mark.parametrize("kind, shape", [("vec", (1, 4)), ("map", (1, 4, 1, 1))])
@pytest.mark.parametrize("norm", [BN, {"type": "SyncBN"}, {"type": "SplitBN", "num_groups": 1}], ids=str)
def test_a_single_vector_in_front_of_a_batch_norm_is_refused(kind, shape, norm):
    model = MLP(kind=kind, dims=(4, 6, 2), norm=norm)
    with pytest.raises(ValueError, match=r"MLP\.norm0 .* single vector.*train_dataloader\.batch_size"):
        model(torch.rand(shape))
    assert model(torch.rand(2, *shape[1:])).shape[:2] == (2, 2)
    assert model.eval()(torch.rand(shape)).shape[:2] == (1, 2)
    model.train().norm0.eval()  # frozen statistics
    assert model(torch.rand(shape)).shape[:2] == (1, 2)


def test_several_cells_of_one_image_and_other_norms_are_no_single_vector():
    assert MLP(kind="map", dims=(4, 6, 2), norm=BN)(torch.rand(1, 4, 1, 2)).shape == (1, 2, 1, 2)
    for norm in (None, {"type": "LN"}, {"type": "GN", "num_groups": 2}):
        assert MLP(dims=(4, 6, 2), norm=norm)(torch.rand(1, 4)).shape == (1, 2)


def rank_single() -> torch.Tensor:
    torch.manual_seed(dist.get_rank())
    return MLP(dims=(4, 6, 2), norm={"type": "SyncBN"})(torch.rand(1, 4))


def test_one_vector_a_rank_is_enough_for_statistics_of_all_ranks():
    assert all(torch.isfinite(out).all() and out.any() for out in run_pair(rank_single))


def test_the_refusal_names_the_head_by_its_path():
    model = toy_model([dict(type="SimSiam", hidden=8, dim=8, bottleneck=4)], dict(kind="stop_gradient"))
    with pytest.raises(ValueError, match=r"^online\.projectors\.simsiam_\w+\.norm0 is a batch norm .* single vector"):
        model.loss(toy_batch(1))
