"""Queues against a hand-kept list, on one process and on two, and their persistence."""

import io
from collections import deque

import pytest
import torch
import torch.distributed as dist

from densessl.branches.queue import Centre, Queue, gather_in_order
from densessl.losses import info_nce, unit
from tests.distributed import run_pair

DIM = 3


def keys(count: int, start: int = 0) -> torch.Tensor:
    """Recognisable rows: start, start + 1, … in every channel."""
    return torch.arange(start, start + count, dtype=torch.float32)[:, None].expand(-1, DIM).contiguous()


def oldest_first(queue: Queue, name: str = "keys") -> torch.Tensor:
    return queue.keys(name).roll(-queue.state_dict()[f"state_{name}"][0].item(), 0)


@pytest.mark.parametrize("sizes", [[4] * 5, [3] * 7, [1, 5, 2, 0, 6, 7], [10], [11, 3], [25, 10, 4], [9, 30]], ids=str)
def test_a_bank_is_a_first_in_first_out_list_of_any_batches(sizes):
    queue = Queue({"keys": DIM}, 10)
    kept = deque([(None, row) for row in queue.keys("keys").clone()], maxlen=10)  # (push, key)
    start = 0
    for push, size in enumerate(sizes):
        queue.push("keys", keys(size, start))
        kept.extend((push, row) for row in keys(size, start))
        start += size
        assert torch.equal(oldest_first(queue), torch.stack([row for _, row in kept]))
        ages = [push + 1 - came for came, _ in kept if came is not None]
        figures = queue.figures("keys")
        assert figures["queue_filled"].item() == pytest.approx(len(ages) / 10)
        assert queue.is_full("keys") == (len(ages) == 10)
        assert figures["queue_age"].item() == pytest.approx(sum(ages) / max(1, len(ages)))
    assert queue.keys("keys").shape == (10, DIM)


def test_what_is_oldest_is_overwritten_in_place():
    """Of a bank of 5 the rows 0 … 4 hold keys 5, 6, 2, 3, 4 after seven keys."""
    queue = Queue({"keys": DIM}, 5)
    storage = queue.keys("keys")
    for start, size in ((0, 3), (3, 4)):
        queue.push("keys", keys(size, start))
    assert queue.keys("keys")[:, 0].tolist() == [5, 6, 2, 3, 4]
    assert queue.keys("keys").data_ptr() == storage.data_ptr()


def test_truncated_pushes_stop_at_the_end():
    queue = Queue({"keys": DIM}, 5)
    for start, size, position in ((0, 3, 3), (3, 4, 0), (7, 1, 1), (8, 9, 0), (17, 0, 0)):
        queue.push("keys", keys(size, start), truncate=True)
        assert queue.state_keys[0] == position
    assert queue.keys("keys")[:, 0].tolist() == [7, 8, 9, 10, 11]
    assert queue.state_keys.tolist() == [0, 5, 10]  # what was dropped does not count


def test_a_bank_starts_with_random_directions_and_no_real_key():
    queue = Queue({"keys": 16}, 1000)
    assert queue.figures("keys") == {"queue_filled": 0, "queue_age": 0}
    bank = queue.keys("keys")
    torch.testing.assert_close(bank.norm(dim=1), torch.ones(1000))
    assert bank.mean(0).abs().max() < 0.05
    with pytest.raises(ValueError, match="length of a queue is 0"):
        Queue({"keys": DIM}, 0)


def test_banks_are_independent_and_have_channels_of_their_own():
    queue = Queue({"image": 2, "region": DIM}, 6)
    image = queue.keys("image").clone()
    queue.push("region", keys(4))
    assert torch.equal(queue.keys("image"), image) and queue.figures("image")["queue_filled"] == 0
    queue.push("image", keys(1)[:, :2])
    queue.push("region", keys(4, 4))
    assert queue.keys("region")[:, 0].tolist() == [6, 7, 2, 3, 4, 5]
    assert torch.equal(queue.keys("image")[1:], image[1:]) and not queue.keys("image")[0].any()
    ages = [queue.figures(name)["queue_age"].item() for name in ("image", "region")]
    assert ages == pytest.approx([1, (2 * 2 + 4 * 1) / 6])  # two keys of the push before, four of the last


def test_keys_are_stored_in_the_banks_type_without_gradient():
    queue = Queue({"keys": DIM}, 4).double()
    pushed = torch.rand(2, DIM, dtype=torch.float64, requires_grad=True)
    queue.push("keys", pushed * 1)
    assert queue.keys("keys").dtype == torch.float64 and not queue.keys("keys").requires_grad
    assert torch.equal(queue.keys("keys")[:2], pushed)
    assert queue.state_keys.dtype == queue.written_keys.dtype == torch.int64
    single = Queue({"keys": DIM}, 4)
    single.push("keys", pushed.to(torch.bfloat16))
    assert single.keys("keys").dtype == torch.float32
    assert torch.equal(single.keys("keys")[:2], pushed.to(torch.bfloat16).float())


def test_saved_and_loaded_it_goes_on_bit_for_bit():
    torch.manual_seed(0)
    sizes = [(3, 2), (4, 0), (7, 9), (2, 2)]
    straight = Queue({"a": DIM, "b": DIM}, 5)
    straight.push("b", torch.rand(2, DIM))
    pushes = [(torch.rand(a, DIM), torch.rand(b, DIM)) for a, b in sizes]
    for done, (a, b) in enumerate(pushes):
        straight.push("a", a)
        straight.push("b", b)
        if done == 1:
            file = io.BytesIO()
            torch.save(straight.state_dict(), file)
    resumed = Queue({"a": DIM, "b": DIM}, 5)  # other random directions, other positions
    resumed.push("a", torch.rand(1, DIM))
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for a, b in pushes[2:]:
        resumed.push("a", a)
        resumed.push("b", b)
    expected, found = straight.state_dict(), resumed.state_dict()
    assert expected.keys() == found.keys() and all(torch.equal(expected[name], found[name]) for name in expected)
    for name in ("a", "b"):
        assert straight.figures(name) == resumed.figures(name)


def test_an_earlier_loss_keeps_its_gradient_when_its_bank_is_pushed_over():
    torch.manual_seed(0)
    queue, q, k = Queue({"keys": 8}, 6).double(), torch.rand(4, 8).double().requires_grad_(), torch.rand(4, 8).double()
    (expected,) = torch.autograd.grad(info_nce(unit(q), unit(k), queue.keys("keys").clone()).rows.sum(), q)
    loss = info_nce(unit(q), unit(k), queue.keys("keys")).rows.sum()
    queue.push("keys", unit(k))
    (actual,) = torch.autograd.grad(loss, q)
    assert torch.equal(actual, expected)


# Two ranks: the sampler deals images out in turn, so rank r has the rows r, r + 2, … of the one process.


def rank_pushes(batches: list[torch.Tensor]) -> dict:
    queue = Queue({"keys": DIM}, 10).double()
    for batch in batches:
        queue.push("keys", batch[dist.get_rank() :: 2])
    return dict(queue.state_dict(), **queue.figures("keys"))


@pytest.mark.parametrize("sizes", [[4, 6, 2, 8], [14, 2], [2, 30, 4]], ids=str)
def test_two_ranks_hold_what_one_process_holds(sizes):
    batches = [keys(size, 100 * number).double() for number, size in enumerate(sizes)]
    torch.manual_seed(0)  # as the ranks start
    alone = Queue({"keys": DIM}, 10).double()
    for batch in batches:
        alone.push("keys", batch)
    expected = dict(alone.state_dict(), **alone.figures("keys"))
    for found in run_pair(rank_pushes, batches):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def rank_regions(batches: list[tuple[torch.Tensor, torch.Tensor]]) -> dict:
    """Pushes of (keys, image of each key): rank r has the keys of the images r, r + 2, …"""
    queue = Queue({"keys": DIM}, 10)
    rank = dist.get_rank()
    for batch, image in batches:
        own = image % 2 == rank
        queue.push("keys", batch[own], variable=True, rows=image[own] // 2)
    return dict(queue.state_dict(), **queue.figures("keys"))


@pytest.mark.parametrize(
    "images",
    [
        [[0, 0, 1, 2, 2, 2, 3]],
        [[0, 0, 0, 2], [1, 3, 3]],  # each push from one rank only
        [[1], [], [0, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4, 5]],  # nothing at all, and more than a bank holds
    ],
    ids=str,
)
def test_any_number_of_keys_an_image_and_a_rank(images):
    batches = [(keys(len(image), 100 * n), torch.tensor(image, dtype=torch.int64)) for n, image in enumerate(images)]
    torch.manual_seed(0)
    alone = Queue({"keys": DIM}, 10)
    for batch, image in batches:
        alone.push("keys", batch, variable=True, rows=image)
    expected = dict(alone.state_dict(), **alone.figures("keys"))
    for found in run_pair(rank_regions, batches):
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def rank_gather(counts: tuple[int, int]) -> torch.Tensor:
    rank = dist.get_rank()
    return gather_in_order(keys(counts[rank], 10 * rank).mT.contiguous().mT, variable=True)[:, 0]


@pytest.mark.parametrize(
    ("counts", "expected"), [((3, 1), [0, 10, 1, 2]), ((0, 2), [10, 11]), ((2, 2), [0, 10, 1, 11]), ((0, 0), [])]
)
def test_without_rows_given_the_ranks_take_turns(counts, expected):
    for found in run_pair(rank_gather, counts):
        assert found.tolist() == expected


def rank_centre(batches: list[torch.Tensor]) -> torch.Tensor:
    centre = Centre(DIM, 0.8).double()
    for batch in batches:
        centre.update(batch[dist.get_rank() :: 2])
    return centre.value


def test_a_centre_is_a_moving_average_over_all_ranks():
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(4, DIM, generator=generator, dtype=torch.float64) for _ in range(3)]
    expected = [0.0] * DIM
    for batch in batches:
        means = [sum(column) / 4 for column in batch.T.tolist()]
        expected = [0.8 * old + 0.2 * new for old, new in zip(expected, means)]
    alone = Centre(DIM, 0.8).double()
    for batch in batches:
        alone.update(batch.requires_grad_())
    for value in (alone.value, *run_pair(rank_centre, [batch.detach() for batch in batches])):
        torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)
        assert not value.requires_grad
    assert list(alone.state_dict()) == ["value"]
