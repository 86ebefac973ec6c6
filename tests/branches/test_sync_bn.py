import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn

from densessl.branches.sync_bn import SplitBN, SyncBN
from tests.distributed import run_pair

SHAPES = [(5, 3), (5, 3, 4), (5, 3, 4, 2)]


def randomised(norm: nn.Module) -> nn.Module:
    """The layer with parameters and running statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(1)
    for value in [*norm.parameters(), norm.running_mean, norm.running_var]:
        value.data.copy_(torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5)
    return norm


def batch(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs with another mean and scale per channel, and weights of the summed loss."""
    generator = torch.Generator().manual_seed(2)
    channels = torch.arange(1, shape[1] + 1).view([1, -1] + [1] * (len(shape) - 2))
    x = torch.randn(shape, generator=generator, dtype=torch.float64) * channels + channels
    return x.to(dtype), torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def steps(norm: nn.Module, x: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two training steps (the second on a changed input); outputs, gradients and buffers after them."""
    x = x.clone().requires_grad_()
    out = norm(x)
    second = norm(x.square() + 1)
    ((out + second.tanh()) * weights).sum().backward()
    found = {"out": out.detach(), "second": second.detach(), "grad": x.grad}
    found |= {f"grad of {name}": value.grad for name, value in norm.named_parameters()}
    return found | dict(norm.named_buffers())


def rank_steps(norm, x, weights, sizes) -> dict[str, torch.Tensor]:
    rank = dist.get_rank()
    return steps(norm, x.split(sizes)[rank], weights.split(sizes)[rank])


def joined(results: list[dict], name: str) -> torch.Tensor:
    first, second = (result[name] for result in results)
    if name.startswith("grad of"):
        return first + second
    return torch.cat([first, second]) if name in ("out", "second", "grad") else first


def batch_norm(x: torch.Tensor, *args, **kwargs) -> nn.Module:
    return {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[x.dim()](x.shape[1], *args, **kwargs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sizes", [(4, 1), (2, 3), (5, 0)], ids=str)
def test_two_ranks_equal_one_batch_norm(shape, sizes):
    x, weights = batch(shape)
    expected = steps(randomised(batch_norm(x).double()), x, weights)
    results = run_pair(rank_steps, randomised(SyncBN(shape[1]).double()), x, weights, sizes)
    for name, value in expected.items():
        torch.testing.assert_close(joined(results, name), value, rtol=0, atol=1e-12)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(results[0][name], results[1][name])


@pytest.mark.parametrize(
    "options",
    [{"affine": False}, {"momentum": None}, {"momentum": 0.7, "eps": 0.1}],
    ids=lambda options: "-".join(options),
)
def test_options_on_two_ranks(options):
    x, weights = batch(SHAPES[2])
    expected = steps(nn.BatchNorm2d(3, **options).double(), x, weights)
    results = run_pair(rank_steps, SyncBN(3, **options).double(), x, weights, (3, 2))
    for name, value in expected.items():
        torch.testing.assert_close(joined(results, name), value, rtol=0, atol=1e-12)


def rank_eval(norm, x) -> torch.Tensor:
    return norm.eval()(x)


def test_evaluation_uses_running_statistics_on_two_ranks():
    x, _ = batch(SHAPES[2])
    expected = randomised(nn.BatchNorm2d(3).double()).eval()(x)
    for result in run_pair(rank_eval, randomised(SyncBN(3).double()), x):
        assert torch.equal(result, expected)


def rank_far_mean() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(dist.get_rank())
    norm = SyncBN(2, momentum=1.0)
    x = torch.randn(64, 2, 8, 8, generator=generator, dtype=torch.float64) + 1e3
    out = norm(x.float())
    return x.float(), out, norm.running_mean, norm.running_var


def test_a_large_mean_does_not_cancel_the_variance_in_fp32():
    results = run_pair(rank_far_mean)
    x = torch.cat([result[0] for result in results]).double()  # float64 of the very fp32 values the ranks saw
    mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3))
    expected = (x - mean.view(1, -1, 1, 1)) / (x.var((0, 2, 3), correction=0).view(1, -1, 1, 1) + 1e-5).sqrt()
    _, _, running_mean, running_var = results[0]
    torch.testing.assert_close(running_mean.double(), mean, rtol=2e-7, atol=0)
    torch.testing.assert_close(running_var.double(), variance, rtol=1e-5, atol=0)
    # An fp32 mean near 1e3 is off by up to 3e-5 of a standard deviation, and no more may be lost.
    torch.testing.assert_close(torch.cat([r[1] for r in results]).double(), expected, rtol=0, atol=2e-4)


def rank_format(x: torch.Tensor) -> tuple[torch.dtype, bool, torch.dtype, torch.Tensor]:
    norm = SyncBN(3)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(x)
    out.float().square().sum().backward()
    last = torch.channels_last
    return out.dtype, out.is_contiguous(memory_format=last), x.grad.dtype, norm.running_mean


def test_half_precision_and_memory_format_are_kept_and_statistics_are_fp32():
    x, _ = batch((4, 3, 8, 8), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        reference = nn.BatchNorm2d(3)(x.to(memory_format=torch.channels_last))
    dtype, channels_last, grad_dtype, running_mean = run_pair(rank_format, x)[0]
    assert dtype == grad_dtype == reference.dtype == torch.bfloat16
    assert channels_last
    expected = 0.1 * x.float().mean((0, 2, 3))  # both ranks hold the same batch
    torch.testing.assert_close(running_mean, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_process_is_batch_norm_bit_for_bit(shape):
    x, weights = batch(shape, torch.float32)
    expected = steps(randomised(batch_norm(x)), x, weights)
    found = steps(randomised(SyncBN(shape[1])), x, weights)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("norm", [SyncBN(3), SplitBN(3, num_groups=2)], ids=["sync", "split"])
def test_gradcheck_and_keys(norm):
    reference = nn.BatchNorm2d(3)
    assert list(norm.state_dict()) == list(reference.state_dict())
    x, _ = batch((4, 3, 2, 2))
    norm = copy.deepcopy(norm).double()
    assert torch.autograd.gradcheck(norm, x.requires_grad_())
    with pytest.raises(ValueError, match=r"expected \(N, 3, \.\.\.\), got \(4, 2\)"):
        norm(torch.zeros(4, 2))


@pytest.mark.parametrize("shape", [(6, *shape[1:]) for shape in SHAPES], ids=str)
def test_split_groups_are_separate_batches(shape):
    x, weights = batch(shape)
    norm = randomised(SplitBN(shape[1], num_groups=2).double())
    reference = randomised(batch_norm(x).double())
    halves = [steps(copy.deepcopy(reference), part, weight) for part, weight in zip(x.chunk(2), weights.chunk(2))]
    found = steps(norm, x, weights)
    for name, value in found.items():
        if name.startswith("running"):
            expected = (halves[0][name] + halves[1][name]) / 2
        else:
            expected = joined(halves, name)
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)
    assert torch.equal(norm.eval()(x), copy_of(norm, reference)(x))


def copy_of(norm: nn.Module, reference: nn.Module) -> nn.Module:
    reference.load_state_dict(norm.state_dict())
    return reference.eval()


def test_split_refuses_an_uneven_batch():
    with pytest.raises(ValueError, match="a batch of 5 does not divide into num_groups=2"):
        SplitBN(3, num_groups=2)(torch.zeros(5, 3))
