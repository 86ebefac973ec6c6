"""What every objective promises, whatever its maths. Each module of ``tests/objectives/cases`` adds a method."""

import copy
import io

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from densessl.branches import build_backbone
from densessl.registry import OBJECTIVES
from densessl.weights.read import read_backbone
from tests.distributed import run_pair
from tests.objectives.cases import Case, all_cases
from tests.objectives.toy import BACKBONE, HORIZON, VIT, rows, take_step, total, toy_batch, toy_model, without_overlap

CASES = all_cases()
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
WITH_TARGETS = {
    f"{name}-{target['kind']}-{target.get('timing', 'before_forward')}": (case, target)
    for name, case in CASES.items()
    for target in case.targets
}
ON_MAPS = {name: case for name, case in CASES.items() if not case.tokens}
every_target = pytest.mark.parametrize(("case", "target"), WITH_TARGETS.values(), ids=WITH_TARGETS.keys())
BACKBONES = {
    "swin": dict(
        type="mmdet.SwinTransformer",
        embed_dims=8,
        depths=(1, 1, 1, 1),
        num_heads=(1, 1, 2, 2),
        window_size=2,
        out_indices=(2, 3),
        drop_path_rate=0.0,
    ),
    "timm": dict(type="timm.convnext_atto", dims=(8, 8, 12, 16), depths=(1, 1, 1, 1), out_indices=(2, 3)),
    "vit": dict(VIT, out_indices=(0, 1)),
}


def model_of(case: Case, target: dict | None = None, dtype=torch.float32, seed: int = 0, objectives=None, **online):
    online = dict(backbone=case.backbone, neck=case.neck, head=case.head) | online
    return toy_model(objectives or case.objectives, target or case.targets[0], dtype=dtype, seed=seed, **online)


def batch_of(case: Case, images: int = 4, dtype=torch.float32, seed: int = 0):
    return toy_batch(images, case.sizes, dtype, seed, case.uniforms, case.regions, case.masks)


def test_every_objective_is_covered():
    """Each registered objective has a case, and one in which a collapse shows."""
    ours = {name for name, kind in OBJECTIVES.module_dict.items() if kind.__module__.startswith("densessl.")}
    types = {name: {item["type"] for item in case.objectives} for name, case in CASES.items()}
    assert ours == {kind for found in types.values() for kind in found if kind in ours}
    assert ours == {k for name, found in types.items() if CASES[name].collapsed for k in found if k in ours}


@every_target
def test_gradients_reach_what_is_trained_and_nothing_else(case, target):
    model = model_of(case, target)
    total(model, batch_of(case)).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("target."):
            assert parameter.grad is None and not parameter.requires_grad, name
        elif parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            # A bias in front of a batch norm has none but rounding.
            assert parameter.grad.any() or name.endswith("bias"), name


@every_target
def test_the_target_follows_its_recurrence(case, target):
    model = model_of(case, target, torch.float64)
    batch = batch_of(case, dtype=torch.float64)
    if model.target.is_online:
        assert model.target.branch(model.online) is model.online
        assert not any(name.startswith("target.") for name, _ in model.named_parameters())
        return
    branch = model.target.branch(model.online)
    expected = {k: v.clone() for k, v in branch.named_parameters()}
    for step in range(3):
        before = {k: v.clone() for k, v in model.online.named_parameters()}
        take_step(model, batch)
        if target["kind"] == "ema":
            late = target.get("timing") == "after_step"
            online = dict(model.online.named_parameters()) if late else before
            momentum = target["momentum"]
            if isinstance(momentum, dict):
                cosine = torch.cos(torch.tensor(torch.pi * step / HORIZON.total_steps, dtype=torch.float64)).item()
                momentum = 1 - (1 - momentum["base"]) * (1 + cosine) / 2
            for name in expected:
                expected[name] = momentum * expected[name] + (1 - momentum) * online[name]
        for name, value in branch.named_parameters():
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
    weights = {name: value for name, value in model.online.named_parameters() if value.ndim > 1 and value.requires_grad}
    assert not any(torch.equal(expected[name], value) for name, value in weights.items())


def train_on_rank(rank, world_size, case, objectives=None):
    """Two steps of data-parallel training; the gradients of the second and the state after it."""
    model = model_of(case, dtype=torch.float64, objectives=objectives)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if world_size > 1 else model
    for seed in (0, 1):
        whole = without_overlap(batch_of(case, 8, torch.float64, seed), [0, 2, 5])  # two on one rank, one on the other
        batch = rows(whole, torch.arange(rank, 8, world_size))
        model.zero_grad()
        loss = model.parse_losses(wrapped(*batch, mode="loss"))[0]
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter -= 0.05 * parameter.grad
        model.advance()
    return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}, model.state_dict()


def train_in_pair(case):
    return train_on_rank(torch.distributed.get_rank(), 2, case)


@every_case
def test_two_processes_equal_one(case):
    gradients, state = train_on_rank(0, 1, case, case.two_ranks)
    for other_gradients, other_state in run_pair(train_in_pair, case):
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                other_gradients[name], gradient, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
            )
        for name, value in state.items():
            torch.testing.assert_close(
                other_state[name], value, rtol=1e-9, atol=1e-11, msg=lambda text, name=name: f"{name}: {text}"
            )


@every_case
def test_saving_and_loading_continues_bit_for_bit(case):
    straight = model_of(case)
    for seed in range(4):
        take_step(straight, batch_of(case, seed=seed))
    stopped = model_of(case)
    for seed in range(2):
        take_step(stopped, batch_of(case, seed=seed))
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = model_of(case, seed=9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.step == 2
    for seed in range(2, 4):
        take_step(resumed, batch_of(case, seed=seed))
    state = straight.state_dict()
    assert all(torch.equal(state[name], value) for name, value in resumed.state_dict().items())


@every_case
def test_permuting_the_batch_changes_nothing(case):
    model = model_of(case, dtype=torch.float64)
    batch = batch_of(case, dtype=torch.float64)
    shuffled = rows(batch, torch.tensor([1, 2, 0, 3]))  # other pairs first-with-last
    first, second = total(copy.deepcopy(model), shuffled), total(model, batch)
    if case.permutes:
        torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)
    else:
        assert abs(first - second) > 1e-6, "the case says order matters"


@every_case
def test_views_without_overlap_give_finite_losses_and_gradients(case):
    model = model_of(case)
    batch = without_overlap(batch_of(case), [0, 1, 2, 3])
    figures = model.loss(batch)
    loss, _ = model.parse_losses(figures)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(v).all() for v in figures.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    for name, value in figures.items():
        if name.endswith("no_overlap"):
            assert value == 1
        if name in ("pixpro.loss", "pixcontrast.loss"):
            assert value == 0


@every_case
def test_bf16_is_close_to_fp32(case):
    batch, deviations = batch_of(case), []
    for seed in range(case.bf16_draws):
        exact = total(model_of(case, seed=seed), batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough = total(model_of(case, seed=seed), batch)
        assert rough.dtype == torch.float32
        deviations.append(abs(rough - exact).item() / max(1.0, abs(exact).item()))
    # bf16 keeps 8 bits; batch norm over 4 images of 4x4 cells lifts the rounding of the convolutions.
    assert sum(deviations) / len(deviations) < case.bf16


@every_case
def test_one_image_is_finite_or_refused(case):
    model = model_of(case)
    batch = batch_of(case, images=1)
    if case.single_image == "refused":
        with pytest.raises(ValueError, match=r"(projectors|objectives)\.\S+norm\d is a batch norm.*batch_size"):
            model.loss(batch)
        return
    loss = total(model, batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def constant(backbone, _, outputs):
    """A forward hook: the maps (N, C, H, W) or sequences (N, L, C) of a collapsed backbone, equal for all images and
    cells."""
    channels = [item.shape[1] if item.ndim == 4 else item.shape[2] for item in outputs]
    values = [torch.linspace(0.1, 1, count, dtype=item.dtype) for count, item in zip(channels, outputs)]
    return tuple(item * 0 + (value[:, None, None] if item.ndim == 4 else value) for item, value in zip(outputs, values))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.collapsed])
def test_a_collapse_is_visible(name):
    case = CASES[name]
    figure, expected = case.collapsed
    batch = batch_of(case)
    healthy = model_of(case).loss(batch)[figure]
    model = model_of(case)
    for branch in (model.online, model.target.branch(model.online)):
        branch.backbone._forward_hooks.clear()
        branch.backbone.register_forward_hook(constant)
    collapsed = model.loss(batch)[figure]
    assert collapsed.item() == pytest.approx(expected, abs=0.02)
    assert abs(healthy.item() - expected) > 0.03, "the figure cannot tell"


@every_case
def test_the_backbone_comes_back_out(case):
    model = model_of(case)
    take_step(model, batch_of(case))
    state, _ = read_backbone({"state_dict": model.state_dict()})
    backbone = build_backbone(case.backbone or BACKBONE).to(memory_format=torch.channels_last)
    backbone.load_state_dict(state)
    view = batch_of(case).views[0]
    for ours, theirs in zip(model.eval().online.backbone(view), backbone.eval()(view)):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backbone", BACKBONES.values(), ids=BACKBONES.keys())
@pytest.mark.parametrize("case", ON_MAPS.values(), ids=ON_MAPS.keys())
def test_other_backbones(case, backbone):
    """Level and channels come from the backbone: nothing else in the config changes."""
    if backbone["type"] == "ViT":
        backbone = dict(backbone, patch_size=case.patch_size)
    model = model_of(case, backbone=backbone)
    loss = total(model, batch_of(case))
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.online.backbone.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    assert any(p.grad is not None and p.grad.any() for p in model.online.backbone.parameters())


@pytest.mark.parametrize("backbone", [BACKBONE, BACKBONES["swin"], BACKBONES["timm"]], ids=["resnet", "swin", "timm"])
def test_sequences_are_asked_of_transformers_only(backbone):
    for case in (case for case in CASES.values() if case.tokens):
        with pytest.raises(ValueError, match=r"'tokens.0' .* online.backbone \w+ gives maps and no sequences.*'ViT'"):
            model_of(case, backbone=backbone)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_accumulated_micro_steps_move_the_target_once(micro):
    model = model_of(CASES["pixpro"], dict(kind="ema", momentum=0.9))
    before = [p.clone() for p in model.online.parameters()]
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter += 1
    for _ in range(micro):
        total(model, toy_batch())
    for own, start in zip(model.target.branch(model.online).parameters(), before):
        torch.testing.assert_close(own, start + 0.1, rtol=1e-5, atol=1e-6)


def test_identical_views_of_a_perfect_target_reach_the_floor():
    """With target and online alike, no propagation to learn (one cell a map), and equal views, the loss is -4."""
    objective = dict(type="PixPro", transform_layers=0, hidden=12, dim=8)
    model = toy_model([objective], dict(kind="stop_gradient"))
    batch = toy_batch(sizes=(16, 16))
    batch = batch._replace(views=[batch.views[0]] * 2, geometry=[batch.geometry[0]] * 2)
    assert total(model, batch).item() == pytest.approx(-4, abs=1e-4)


def test_the_loss_is_the_weighted_sum():
    """The same model and batch, so the same terms; only the weights differ."""
    batch = toy_batch(dtype=torch.float64)
    small = dict(hidden=12, dim=8)
    plain, weighted = (
        toy_model(
            [dict(type="PixPro", weight=a, **small), dict(type="PixContrast", weight=b, **small)], dtype=torch.float64
        )
        for a, b in ((1, 1), (0.25, 3))
    )
    terms = plain.loss(batch)
    torch.testing.assert_close(total(weighted, batch), 0.25 * terms["pixpro.loss"] + 3 * terms["pixcontrast.loss"])


def test_errors_name_the_key():
    small = dict(type="PixPro", hidden=12, dim=8)
    with pytest.raises(ValueError, match="two objectives are named 'pixpro'"):
        toy_model([small] * 2)
    with pytest.raises(ValueError, match="level 5 is asked for, the backbone gives 2"):
        toy_model([dict(small, level=5)])
    with pytest.raises(ValueError, match=r"objectives.pixpro.coords 'inclusive' is unknown"):
        toy_model([dict(small, coords="inclusive")])
