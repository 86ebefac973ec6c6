import pytest
import torch
from mmengine.optim import AmpOptimWrapper
from torch import nn

from densessl.engine import precision as module
from densessl.engine.precision import DenseOptimWrapper, _cpu_flags, clip_each_grad_, has_bf16, resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def toy(seed=0):
    torch.manual_seed(seed)
    model = nn.Linear(6, 3)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize(("hardware", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_follows_the_hardware(monkeypatch, hardware, expected):
    monkeypatch.setattr(module, "_cpu_flags", lambda: {"avx2", "avx512_bf16"} if hardware else {"avx2"})
    # An emulated bf16 must not count: an old GPU answers True unless it is told not to.
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: hardware or including_emulation
    )
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("auto", CUDA) == expected
    assert resolve_precision("auto", torch.device("meta")) == "fp32"


def test_explicit_precisions_are_taken_at_their_word(monkeypatch):
    monkeypatch.setattr(module, "has_bf16", lambda device: False)
    assert [resolve_precision(name, CPU) for name in ("bf16", "fp32")] == ["bf16", "fp32"]
    assert resolve_precision("fp16", CUDA) == "fp16"


@pytest.mark.parametrize(
    ("name", "message"),
    [("fp16", "needs a CUDA device, and this is 'cpu'"), ("half", "'half' is unknown; known: auto, bf16")],
)
def test_impossible_precisions_are_errors(name, message):
    with pytest.raises(ValueError, match=message):
        DenseOptimWrapper(toy()[1], precision=name)


def test_flags_are_read_for_x86_and_arm(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert _cpu_flags(file) == {"fpu", "avx512_bf16", "amx_bf16"}
    file.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert _cpu_flags(file) == {"fp", "asimd", "bf16"}
    assert _cpu_flags(tmp_path / "absent") == set()


def test_this_cpu_agrees_with_torch():
    assert has_bf16(CPU) >= torch.cpu._is_avx512_bf16_supported()


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_forward_runs_in_the_precision_and_updates_in_float32(name, dtype):
    model, optimizer = toy()
    wrapper = DenseOptimWrapper(optimizer, precision=name)
    with wrapper.optim_context(model):
        out = model(torch.randn(4, 6))
        assert out.dtype == dtype
    assert not torch.is_autocast_enabled("cpu")
    before = model.weight.detach().clone()
    wrapper.update_params(out.float().square().mean())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)
    assert not isinstance(wrapper, AmpOptimWrapper)


def test_gradients_of_several_views_are_summed_in_float32():
    """The gradient of a weight used on two views is the sum of the gradients of the views, not its bf16 rounding; and a
    first use without gradients does not cut the weight off."""
    views = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))

    def gradient(used):
        model, optimizer = toy()
        wrapper = DenseOptimWrapper(optimizer, precision="bf16")
        with wrapper.optim_context(model):
            with torch.no_grad():
                model(views[0])
            loss = sum(model(view).float().square().sum() for view in used)
        loss.backward()
        return model.weight.grad

    both = gradient(views)
    assert torch.equal(both, gradient(views[:1]) + gradient(views[1:]))
    assert not torch.equal(both, both.bfloat16().float())


def test_accumulation_and_clipping_equal_one_large_batch():
    data = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    results = []
    for counts in (1, 3):
        model, optimizer = toy()
        wrapper = DenseOptimWrapper(
            optimizer, precision="fp32", accumulative_counts=counts, clip_grad={"max_norm": 0.01}
        )
        wrapper.initialize_count_status(model, 0, counts)
        for part in data.chunk(counts):
            with wrapper.optim_context(model):
                loss = model(part).square().mean()
            wrapper.update_params(loss)
        results.append(model.weight.detach() - toy()[0].weight)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-9)
    step = results[0].norm().item()
    assert 0 < step <= 0.1 * 0.01 * (1 + 1e-5)


class TestClipping:
    def test_every_gradient_is_clipped_on_its_own(self):
        generator = torch.Generator().manual_seed(0)
        grads = [size * torch.randn(4, 3, dtype=torch.float64, generator=generator) for size in (0.1, 1.0, 50.0, 0.0)]
        params = [nn.Parameter(torch.zeros_like(grad)) for grad in grads]
        for param, grad in zip(params, grads):
            param.grad = grad.clone()
        clip_each_grad_(params, 3.0)
        for param, grad in zip(params, grads):
            norm = sum(x * x for x in grad.flatten().tolist()) ** 0.5
            factor = 3.0 / (norm + 1e-6)
            torch.testing.assert_close(param.grad, grad * factor if factor < 1 else grad, rtol=1e-13, atol=0)
        assert [bool(param.grad.norm() < 0.999 * grad.norm()) for param, grad in zip(params, grads)] == [
            False, True, True, False,
        ]  # fmt: skip

    def test_it_reads_no_value_back_to_the_host(self):
        """Meta tensors have no values: whoever asks for one raises."""
        param = nn.Parameter(torch.empty(2, 3, device="meta"))
        param.grad = torch.empty_like(param)
        clip_each_grad_([param], 3.0)

    def test_the_wrapper_clips_and_leaves_missing_gradients_alone(self):
        model = nn.ModuleList(nn.Linear(2, 2, bias=False) for _ in range(3))
        wrapper = DenseOptimWrapper(
            torch.optim.SGD(model.parameters(), lr=1.0),
            precision="fp32",
            clip_grad={"type": "per_parameter", "max_norm": 0.5},
        )
        before = [layer.weight.detach().clone() for layer in model]
        wrapper.update_params(100 * model[0].weight.sum() + 0.01 * model[1].weight.sum())
        moved = [(layer.weight.detach() - old).norm() for layer, old in zip(model, before)]
        torch.testing.assert_close(torch.stack(moved), torch.tensor([0.5, 0.02, 0.0]), rtol=1e-4, atol=0)

    @pytest.mark.parametrize("clip", [{"max_norm": 0.1}, {"type": "norm", "max_norm": 0.1}])
    def test_the_norm_of_all_gradients_is_still_the_default(self, clip):
        model, optimizer = toy()
        before = torch.cat([param.detach().flatten() for param in model.parameters()])
        DenseOptimWrapper(optimizer, precision="fp32", clip_grad=clip).update_params(model(torch.ones(1, 6)).sum())
        after = torch.cat([param.detach().flatten() for param in model.parameters()])
        torch.testing.assert_close((after - before).norm(), torch.tensor(0.01), rtol=1e-4, atol=0)

    def test_values_can_still_be_clipped(self):
        model, optimizer = toy()
        before = model.weight.detach().clone()
        clip = {"type": "value", "clip_value": 0.25}
        DenseOptimWrapper(optimizer, precision="fp32", clip_grad=clip).update_params(model(torch.ones(1, 6)).sum())
        torch.testing.assert_close(before - model.weight, torch.full((3, 6), 0.025))

    @pytest.mark.parametrize(
        ("clip", "message"),
        [
            (
                {"type": "per_param", "max_norm": 1.0},
                "clip_grad.type 'per_param' is unknown; .* per_parameter",
            ),
            ({"type": "per_parameter", "max_nrom": 1.0}, r"needs `max_norm` alone, found \['max_nrom'\]"),
            ({"type": "per_parameter"}, r"needs `max_norm` alone, found \[\]"),
        ],
    )
    def test_misspelt_options_are_errors(self, clip, message):
        with pytest.raises(ValueError, match=message):
            DenseOptimWrapper(toy()[1], precision="fp32", clip_grad=clip)


class TestLossScaler:
    """fp16 asks for a GPU, its scaler does not: the scaler's part is tested with a real one on the CPU."""

    @staticmethod
    def scaled(**options):
        model, optimizer = toy()
        wrapper = DenseOptimWrapper(optimizer, precision="fp32", **options)
        wrapper.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        return model, wrapper

    @pytest.mark.parametrize(
        "clip", [None, {"max_norm": 0.05}, {"type": "per_parameter", "max_norm": 0.05}], ids=["none", "norm", "each"]
    )
    def test_scale_cancels_also_under_clipping(self, clip):
        data = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
        weights = []
        for model, wrapper in (
            (*(pair := toy())[0:1], DenseOptimWrapper(pair[1], precision="fp32", clip_grad=clip)),
            self.scaled(clip_grad=clip),
        ):
            for _ in range(3):
                wrapper.update_params(model(data).square().mean())
            weights.append(model.weight.detach())
        torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("kind", ["norm", "per_parameter"])
    def test_overflow_skips_the_update_and_lowers_the_scale(self, kind):
        model, wrapper = self.scaled(clip_grad={"type": kind, "max_norm": 1.0})
        before = model.weight.detach().clone()
        wrapper.update_params((model(torch.ones(1, 6)) * torch.inf).sum())
        assert torch.equal(model.weight, before) and wrapper.scaler.get_scale() == 512.0
        assert wrapper.inner_count == 1

    def test_scale_is_saved(self):
        _, wrapper = self.scaled()
        wrapper.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        saved = wrapper.state_dict()
        kept = dict(saved)
        _, other = self.scaled()
        other.load_state_dict(saved)
        assert other.scaler.get_scale() == 64.0 and saved == kept

    def test_precision_may_change_between_runs(self):
        model, wrapper = self.scaled()
        wrapper.update_params(model(torch.ones(1, 6)).sum())
        plain = DenseOptimWrapper(toy()[1], precision="fp32")
        plain.load_state_dict(wrapper.state_dict())
        assert "loss_scaler" not in plain.state_dict()
        _, fresh = self.scaled()
        fresh.load_state_dict(plain.state_dict())
        assert fresh.scaler.get_scale() == 1024.0


def test_precision_is_logged_once(monkeypatch):
    lines = []
    monkeypatch.setattr(module, "print_log", lambda text, **kwargs: lines.append(text))
    wrapper = DenseOptimWrapper(toy()[1], precision="bf16")
    model, _ = toy()
    with wrapper.optim_context(model):
        model(torch.ones(1, 6))
    assert lines == ["Precision: bf16 on cpu (configured: bf16)."]
