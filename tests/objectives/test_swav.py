"""SwAV against loops over its definition, and its queue, freezing and start in a model."""

import math

import pytest
import torch

from densessl.engine.lars import LARS
from densessl.errors import SettingError
from densessl.losses import sinkhorn, unit
from densessl.objectives.dino import DINO
from densessl.objectives.swav import SwAV, swapped_prediction
from densessl.schedules import Step
from tests.distributed import run_pair
from tests.objectives.cases import STOP
from tests.objectives.cases.swav import SIZES, SWAV
from tests.objectives.toy import HORIZON, take_step, total, toy_batch, toy_model


def loop_codes(scores, epsilon, iterations):
    """Equal shares of prototypes, then of samples, on plain exponentials."""
    q = (scores / epsilon).exp()
    for _ in range(iterations):
        q = q / q.sum(0, keepdim=True) / q.shape[1]
        q = q / q.sum(1, keepdim=True) / q.shape[0]
    return q * q.shape[0]


def loop_loss(projections, weight, queued, assign, temperature=0.1, epsilon=0.05, iterations=3):
    """Every pair of an assigned and another crop, every image by itself."""
    vectors = [row / row.norm(dim=1, keepdim=True) for row in projections]
    directions = weight / weight.norm(dim=1, keepdim=True)
    images, loss = len(vectors[0]), 0
    for i in assign:
        samples = torch.cat([queued[i], vectors[i]]) @ directions.T
        codes = loop_codes(samples, epsilon, iterations)[-images:]
        for v in range(len(vectors)):
            for n in range(images):
                if v != i:
                    probabilities = (vectors[v][n] @ directions.T / temperature).softmax(0)
                    loss = loss - (codes[n] * probabilities.log()).sum() / images
    return loss / (len(assign) * (len(vectors) - 1))


@pytest.mark.parametrize("assign", [(0, 1), (1,), (0, 1, 3)])
def test_the_loss_is_that_of_loops_before_and_after_the_queue_is_full(assign):
    model = toy_model([dict(SWAV, assign=assign, queue_length=8)], STOP, dtype=torch.float64)
    seen = {view: torch.zeros(0, 8, dtype=torch.float64) for view in assign}
    projected = []
    model.online.projectors["swav_projector"].register_forward_hook(lambda *args: projected.append(args[-1].detach()))
    for step in range(4):
        figures = model.loss(toy_batch(sizes=SIZES, dtype=torch.float64, seed=step))
        crops = projected[-1].chunk(4)
        queued = {view: rows if len(rows) == 8 else rows[:0] for view, rows in seen.items()}
        expected = loop_loss(crops, model.objectives["swav"].prototypes.weight.detach(), queued, assign)
        torch.testing.assert_close(figures["swav.loss"].detach(), expected, rtol=1e-10, atol=1e-12)
        seen = {view: torch.cat([rows, unit(crops[view])])[-8:] for view, rows in seen.items()}
        assert figures["swav.queue_filled"] == min(1, (step + 1) / 2)
    assert len(projected) == 4, "the projector runs once a step, on all crops"


@pytest.mark.parametrize(("identical", "expected"), [(False, 8.40), (True, 6.89)])
def test_random_embeddings_give_the_known_loss(identical, expected):
    """Of 3000 prototypes and unit vectors of 128 dimensions: ln 3000 + 1 / (2 * 128 * T^2) for independent views."""
    torch.manual_seed(0)
    prototypes = unit(torch.randn(3000, 128))
    first, second = (unit(torch.randn(256, 128)) @ prototypes.T for _ in range(2))
    scores = {0: first, 1: first if identical else second}
    codes = {view: sinkhorn(rows) for view, rows in scores.items()}
    assert swapped_prediction(scores, codes, 0.1).item() == pytest.approx(expected, abs=0.05)


def later(**when):
    return dict(type="switch", before=False, after=True, **when)


def test_prototypes_are_trained_after_313_steps_also_outside_a_run():
    trained = SwAV(dim=8, prototypes=10).train_prototypes
    assert [trained(Step(index)) for index in (0, 312, 313)] == [False, False, True]


def test_settings_of_earlier_versions_are_told_what_says_the_same():
    with pytest.raises(SettingError) as error:
        SwAV(dim=8, prototypes=10, queue_from_epoch=15, freeze_steps=5005)
    assert str(error.value).splitlines() == [
        "SwAV takes no 'queue_from_epoch' any more: use_queue=dict(type='switch', before=False, after=True, "
        "at_epoch=15)",
        "SwAV takes no 'freeze_steps' any more: train_prototypes=dict(type='switch', before=False, after=True, "
        "at_step=5005)",
    ]
    with pytest.raises(SettingError, match=r"DINO takes no 'freeze_epochs' .* train_prototypes=dict\(.*at_epoch=2\)"):
        DINO(freeze_epochs=2)


def test_frozen_prototypes_take_part_and_stay():
    model = toy_model([dict(SWAV, train_prototypes=later(at_step=2))], STOP, dtype=torch.float64)
    weight = model.objectives["swav"].prototypes.weight
    optimizer = LARS(model.parameters(), lr=1.0, weight_decay=0.1, form="larc")
    start = unit(weight.detach().clone())
    for step in range(3):
        optimizer.zero_grad()
        total(model, toy_batch(sizes=SIZES, dtype=torch.float64)).backward()
        # Not None, for which data parallelism would wait.
        assert weight.grad is not None and weight.grad.any() == (step == 2)
        optimizer.step()
        model.advance()
        assert torch.allclose(weight, start, rtol=0, atol=1e-12) == (step < 2)


def test_a_target_that_copies_the_online_branch_is_the_stop_gradient():
    models = [
        toy_model([dict(SWAV)], target, dtype=torch.float64)
        for target in (STOP, dict(kind="ema", momentum=0.0, timing="before_forward"))
    ]
    for seed in range(2):
        batch = toy_batch(sizes=SIZES, dtype=torch.float64, seed=seed)
        one, other = (take_step(model, batch) for model in models)
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_the_queue_starts_with_its_epoch():
    objective = SwAV(dim=8, prototypes=10, views=((0, 1),), queue_length=4, use_queue=later(at_epoch=1))
    for index in range(HORIZON.steps_per_epoch + 1):
        objective.codes({view: unit(torch.randn(4, 8)) for view in (0, 1)}, Step(index, HORIZON))
        started = index >= HORIZON.steps_per_epoch
        assert all(objective.queue.figures(name)["queue_filled"] == started for name in objective.queue.names)


def test_a_queue_known_to_be_full_is_forgotten_with_its_state():
    """Weights loaded into a running model may come with an empty queue."""
    objective = SwAV(dim=8, prototypes=10, views=((0, 1),), queue_length=4)
    empty = {name: value.clone() for name, value in objective.state_dict().items()}
    keys, rows = ({view: unit(torch.randn(4, 8)) for view in (0, 1)} for _ in range(2))
    objective.codes(keys, Step(0))
    with_queue = objective.codes(rows, Step(1))
    objective.load_state_dict(empty)
    without = objective.codes(rows, Step(2))
    torch.testing.assert_close(without[0], sinkhorn(rows[0] @ objective.prototypes.weight.T))
    assert not torch.allclose(without[0], with_queue[0], atol=1e-3)


def odd_queue_codes():
    """Codes of this rank's two images, of a queue of five keys."""
    objective = SwAV(dim=8, prototypes=6, views=((0, 1),), assign=(0,), queue_length=5).double()
    keys = unit(torch.randn(12, 8, dtype=torch.float64))
    rank, world = (torch.distributed.get_rank(), 2) if torch.distributed.is_initialized() else (0, 1)
    for index, rows in enumerate(keys.split(4)):
        codes = objective.codes({0: rows[rank::world]}, Step(index))[0]
    return codes


def test_each_row_of_the_queue_counts_once_on_two_ranks():
    torch.manual_seed(0)
    whole = odd_queue_codes()
    for rank, part in enumerate(run_pair(odd_queue_codes)):
        torch.testing.assert_close(part, whole[rank::2], rtol=1e-9, atol=1e-12)


def test_codes_follow_their_images_and_collapse_is_ln_k():
    objective = SwAV(dim=8, prototypes=10, views=((0, 1),)).double()
    rows, order = unit(torch.randn(6, 8, dtype=torch.float64)), torch.tensor([3, 1, 5, 0, 2, 4])
    codes = objective.codes({0: rows, 1: rows[order]}, Step(0))
    torch.testing.assert_close(codes[1], codes[0][order])
    torch.testing.assert_close(codes[0].sum(1), torch.ones(6, dtype=torch.float64))
    same = objective.codes({0: rows[:1].expand(6, -1)}, Step(0))[0]
    torch.testing.assert_close(same, torch.full_like(same, 0.1))
    assert swapped_prediction({0: same * 0, 1: same}, {0: same}, 0.1).item() == pytest.approx(math.log(10))


def test_errors_name_the_key():
    with pytest.raises(ValueError, match=r"SwAV.views is \(0, 1\), expected groups"):
        SwAV(views=(0, 1))
    with pytest.raises(ValueError, match=r"objectives.swav.assign is \(0, 2\); expected some of its views \(0, 1\)"):
        SwAV(views=((0, 1),), assign=(0, 2))
