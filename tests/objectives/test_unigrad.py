"""UniGrad and its dense form against loops over images, places and channels in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from densessl.losses import gradient_terms
from densessl.objectives.unigrad import Correlation, UniGrad, directions
from densessl.registry import OBJECTIVES
from densessl.schedules import Step
from tests.golden.unigrad import Given as Vectors
from tests.objectives.test_lcloss import Given, box, read
from tests.objectives.toy import toy_batch, toy_model, without_overlap

WEIGHT, RHO = 7.0, 0.9


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outer_mean(rows):
    """Mean outer product of vectors, channel by channel."""
    size = range(len(rows[0]))
    return [[sum(row[i] * row[j] for row in rows) / len(rows) for j in size] for i in size]


def test_the_gradient_is_the_one_written_down():
    z, t, square = noise(5, 4).requires_grad_(), noise(5, 4, seed=1), noise(4, 4, seed=2)
    matrix = square @ square.mT
    positive, negative = gradient_terms(z, t, matrix)
    (positive + WEIGHT * negative).sum().backward()
    torch.testing.assert_close(z.grad, -t + WEIGHT * z.detach() @ matrix, rtol=1e-12, atol=1e-12)
    for n in range(5):
        own, other, m = z[n].tolist(), t[n].tolist(), matrix.tolist()
        assert positive[n].item() == pytest.approx(-sum(a * b for a, b in zip(own, other)))
        quadratic = sum(own[i] * m[i][j] * own[j] for i in range(4) for j in range(4))
        assert negative[n].item() == pytest.approx(quadratic)


@pytest.mark.parametrize("images", [1, 5])
def test_steps_match_loops(images):
    """Three steps: the matrix is set, then moved, before it is used; gradients go through the normalisation."""
    objective = UniGrad(hidden=1, dim=4, negative_weight=WEIGHT, momentum=RHO).double()
    average = None
    for step in range(3):
        raw = noise(4, images, 4, seed=step)
        online = [item.clone().requires_grad_() for item in raw[:2]]
        figures = objective({"online": Vectors(*online), "target": Vectors(*raw[2:])}, None, None)
        figures["loss"].backward()

        units = [[[x / sum(y * y for y in row) ** 0.5 for x in row] for row in item] for item in raw.tolist()]
        batch = outer_mean(units[2] + units[3])
        if average is None:
            average = batch
        else:
            average = [[RHO * a + (1 - RHO) * b for a, b in zip(*rows)] for rows in zip(average, batch)]
        torch.testing.assert_close(
            objective.correlation.value, torch.tensor(average, dtype=torch.float64), rtol=1e-12, atol=1e-14
        )
        loss = 0.0
        for view, target in ((0, 1), (1, 0)):
            for n in range(images):
                z, t = units[view][n], units[2 + target][n]
                wanted = [-t[i] + WEIGHT * sum(z[j] * average[j][i] for j in range(4)) for i in range(4)]
                along = sum(g * x for g, x in zip(wanted, z))
                loss += along / images / 2
                # The part along z does not move a unit vector.
                length = raw[view, n].norm().item()
                expected = [(g - along * x) / length / images / 2 for g, x in zip(wanted, z)]
                torch.testing.assert_close(
                    online[view].grad[n], torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-12
                )
        assert figures["loss"].item() == pytest.approx(loss, rel=1e-10)
        assert figures["directions"].item() == pytest.approx(
            sum(average[i][i] for i in range(4)) ** 2 / sum(x * x for row in average for x in row)
        )


def test_directions_count_what_is_taken_up():
    basis = torch.linalg.qr(noise(6, 6))[0]
    for used in (1, 3, 6):
        rows = basis[:used]
        assert directions(rows.mT @ rows / used).item() == pytest.approx(used)
    assert directions(torch.zeros(3, 3)) == 0


def test_the_average_is_kept_in_its_own_precision():
    average = Correlation(4, 0.99)
    with torch.autocast("cpu", torch.bfloat16):
        average.update(noise(3, 4).bfloat16())
        average.update(noise(3, 4).bfloat16())
    assert average.value.dtype == torch.float32
    rows = noise(3, 4).bfloat16().float()
    torch.testing.assert_close(average.value, rows.mT @ rows / 3)


GRID = dict(type="OverlapGrid", size=3)


def setting(apart=(1,), **options):
    """An objective without predictor, leaf maps of its branches (5x4 cells online, 4x6 target), and their batch."""
    options = dict(type="DenseUniGrad", dim=6, negative_weight=0.3, correspondence=GRID) | options
    objective = OBJECTIVES.build(options)
    objective.predictor = nn.Identity()
    batch = without_overlap(toy_batch(4, dtype=torch.float64), list(apart))
    online = [noise(4, 6, 5, 4, seed=seed).requires_grad_() for seed in (0, 1)]
    target = [noise(4, 6, 4, 6, seed=seed) for seed in (2, 3)]
    return objective, {"online": Given(*online), "target": Given(*target)}, batch


def by_loops(maps, batch, ways):
    """The loss, each point of the grid read by hand in source coordinates."""
    losses = []
    for first, second in ways:
        geometry = batch.geometry[first], batch.geometry[second]
        predictions, targets = [], []
        for n in range(4):
            (low_a, high_a), (low_b, high_b) = (box(item, n) for item in geometry)
            low, high = np.maximum(low_a, low_b), np.minimum(high_a, high_b)
            if not (high > low).all():
                continue
            for row in range(3):
                for column in range(3):
                    source = low + (np.array([column, row]) + 0.5) / 3 * (high - low)
                    predictions.append(read(maps["online"].maps[first][n].detach(), geometry[0], n, source)[0].tolist())
                    t = read(maps["target"].maps[second][n], geometry[1], n, source)[0]
                    targets.append(((t - t.mean()) / (t.var(correction=0) + 1e-5).sqrt()).tolist())
        matrix = outer_mean(targets)
        far = sum((a - b) ** 2 for p, t in zip(predictions, targets) for a, b in zip(p, t)) / len(targets)
        quadratics = [p[i] * matrix[i][j] * p[j] for p in predictions for i in range(6) for j in range(6)]
        losses.append((far + 0.3 * sum(quadratics) / len(targets)) / 6)
    return sum(losses) / len(losses), len(targets)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_dense_loss_matches_loops(symmetric):
    objective, maps, batch = setting(symmetric=symmetric)
    expected, places = by_loops(maps, batch, [(0, 1), (1, 0)] if symmetric else [(0, 1)])
    figures = objective(maps, batch, Step(0))
    assert figures["loss"].item() == pytest.approx(expected, rel=1e-10)
    assert figures["valid_pairs"] == places == 27 and figures["valid_images"] == 3


def test_images_without_overlap_have_no_gradient_and_no_say():
    objective, maps, batch = setting()
    figures = objective(maps, batch, Step(0))
    figures["loss"].backward()
    for leaf in maps["online"].maps:
        assert not leaf.grad[1].any() and all(leaf.grad[n].any() for n in (0, 2, 3))
    for given in maps["target"].maps:
        given[1] = 9 * noise(6, 4, 6, seed=8)
    changed = objective(maps, batch, Step(0))
    for name in ("loss", "positive_cosine", "directions"):
        torch.testing.assert_close(changed[name], figures[name])
    nothing = objective(maps, without_overlap(batch, [0, 1, 2, 3]), Step(0))
    assert nothing["loss"] == 0 and nothing["directions"] == 0


def test_targets_count_by_their_direction_only():
    """A cell's target is normed: neither a factor nor a shift of all its channels matters, in one view or in all."""
    objective, maps, batch = setting(apart=())
    before = objective(maps, batch, Step(0))["loss"]
    maps["target"] = Given(*(100 * item + 7 for item in maps["target"].maps))
    torch.testing.assert_close(objective(maps, batch, Step(0))["loss"], before, rtol=1e-4, atol=0)


def test_the_plan_is_no_larger_than_its_directions():
    def planned(symmetric):
        plan = OBJECTIVES.build(dict(type="DenseUniGrad", hidden=4, dim=4, symmetric=symmetric)).plan()
        return sorted((forward.branch, forward.views) for forward in plan)

    assert planned(False) == [("online", (0,)), ("target", (1,))]
    assert planned(True) == [("online", (0,)), ("online", (1,)), ("target", (0,)), ("target", (1,))]


def test_state_and_heads_have_their_keys():
    model = toy_model([dict(type="UniGrad", hidden=12, dim=8), dict(type="DenseUniGrad", hidden=12, dim=8)])
    state = model.state_dict()
    assert state["objectives.unigrad.correlation.value"].shape == (8, 8)
    heads = {name for name, _ in model.named_parameters() if "unigrad" in name}
    official = {f"linear{i}.weight" for i in range(3)} | {"linear2.bias"}
    official |= {f"norm{i}.{name}" for i in range(2) for name in ("weight", "bias")}
    for branch in ("online", "target"):
        prefix = f"{branch}.projectors.unigrad_projector."
        assert {name.removeprefix(prefix) for name in heads if name.startswith(prefix)} == official
    assert any(name.startswith("objectives.denseunigrad.predictor.") for name in heads)
    assert not any(name.startswith("objectives.unigrad.predictor") for name in heads)


@pytest.mark.parametrize("kind", ["UniGrad", "DenseUniGrad"])
def test_errors_name_the_key(kind):
    with pytest.raises(ValueError, match=rf"objectives.{kind.lower()}.views is \(0, 1, 2\)"):
        OBJECTIVES.build(dict(type=kind, views=(0, 1, 2)))
