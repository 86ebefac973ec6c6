"""State that objectives keep across steps: queues of keys, and centres."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
import torch.nn.functional as F
from mmengine.dist import get_world_size
from torch import Tensor, nn

from densessl.errors import SettingError
from densessl.losses import global_count


class Queue(nn.Module):
    """Named banks of keys, first in, first out: new keys overwrite the oldest.

    Any number of keys may be pushed: the write position wraps, and if more keys are pushed than a bank holds, the last
    ones stay. A push gathers the keys of all ranks in the order that one process would have had, so every rank holds
    the same bank whatever the number of ranks. Banks, positions and counts are buffers: they are saved and resumed.

    Under gradient accumulation every iteration pushes: its keys are negatives of the next iteration of the same step.

    Args:
        banks: width of the keys by name of the bank.
        length: number of keys in each bank. They start as random unit vectors.
    """

    def __init__(self, banks: Mapping[str, int], length: int):
        super().__init__()
        if length < 1:
            raise SettingError(f"the length of a queue is {length}, expected at least 1")
        self.length = length
        self.names = tuple(banks)
        for name, dim in banks.items():
            self.register_buffer(f"bank_{name}", F.normalize(torch.randn(length, dim), dim=1))
            self.register_buffer(f"written_{name}", torch.full((length,), -1))  # number of the push that wrote each row
            # Write position, number of pushes, number of keys pushed.
            self.register_buffer(f"state_{name}", torch.zeros(3, dtype=torch.int64))
        # The same as Python numbers, since reading the buffer would wait for the device.
        self._state = dict.fromkeys(banks, (0, 0, 0))
        self.register_load_state_dict_post_hook(_read_state)

    def keys(self, name: str) -> Tensor:
        """Bank ``name``, (length, C). This is the storage itself: do not differentiate a loss on it after a push,
        unless by :func:`densessl.losses.info_nce`, which keeps no reference."""
        return getattr(self, f"bank_{name}")

    @torch.no_grad()
    def push(
        self, name: str, keys: Tensor, variable: bool = False, rows: Tensor | None = None, truncate: bool = False
    ) -> None:
        """Append keys (M, C), normalised by the caller, to bank ``name`` on all ranks.

        Args:
            variable: whether ranks may have different numbers of keys (regions). The numbers are then exchanged first,
                which waits for the device.
            rows: (M,) ascending, the batch row of each key, where there is not one key for each row. It orders the keys
                of different ranks.
            truncate: drop the keys that would pass the bank's end, and continue at its start, as in CCOP's code.
        """
        bank, written = self.keys(name), getattr(self, f"written_{name}")
        position, pushes, total = self._state[name]
        keys = gather_in_order(keys.to(bank.dtype), variable, rows)
        keys = keys[: self.length - position] if truncate else keys[-self.length :]
        index = (position + torch.arange(len(keys), device=bank.device)) % self.length
        bank[index] = keys
        written[index] = pushes
        self._state[name] = ((position + len(keys)) % self.length, pushes + 1, total + len(keys))
        for place, number in enumerate(self._state[name]):
            getattr(self, f"state_{name}")[place] = number  # a fill: copying from the CPU would wait for the device

    def is_full(self, name: str) -> bool:
        """Whether bank ``name`` holds only real keys. Does not wait for the device."""
        return self._state[name][2] >= self.length

    def figures(self, name: str) -> dict[str, Tensor]:
        """``queue_filled``, the share of rows that hold real keys, and ``queue_age``, their mean age in pushes."""
        written = getattr(self, f"written_{name}")
        real = written >= 0
        age = torch.where(real, self._state[name][1] - written, 0).sum() / real.sum().clamp(min=1)
        return {"queue_filled": real.float().mean(), "queue_age": age}


def _read_state(queue: Queue, _) -> None:
    queue._state = {name: tuple(getattr(queue, f"state_{name}").tolist()) for name in queue.names}


@torch.no_grad()
def gather_in_order(keys: Tensor, variable: bool = False, rows: Tensor | None = None) -> Tensor:
    """Keys (M, C) of all ranks in the order that one process would have had. The sampler deals images out to the ranks
    in turn, so row 0 of every rank comes first, then row 1, and so on.

    Args:
        variable, rows: see :meth:`Queue.push`.
    """
    world = get_world_size()
    if world == 1:
        return keys
    counts = [len(keys)] * world
    if variable:
        counts = torch.cat(_gather(torch.tensor([len(keys)], device=keys.device))).tolist()

    def gather(local: Tensor) -> list[Tensor]:
        padded = local.new_zeros(max(counts), *local.shape[1:])
        padded[: len(local)] = local
        return [part[:count] for part, count in zip(_gather(padded), counts)]

    if rows is None:
        places = [torch.arange(count, device=keys.device) for count in counts]
    else:
        places = gather(rows.to(keys.device))
    order = torch.cat([place * world + rank for rank, place in enumerate(places)])
    return torch.cat(gather(keys))[order.argsort(stable=True)]


def _gather(tensor: Tensor) -> list[Tensor]:
    """The tensors of all ranks, which have the same shape."""
    parts = [torch.empty_like(tensor) for _ in range(get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return parts


class Centre(nn.Module):
    """Moving average of the target's logits over all ranks (DINO, section 3.1), a persisted buffer ``value`` (K,).

    Under gradient accumulation it is updated once per iteration.

    Args:
        dim: number K of logits.
        momentum: share of the old value in an update.
    """

    def __init__(self, dim: int, momentum: float = 0.9):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(dim))

    @torch.no_grad()
    def update(self, logits: Tensor) -> None:
        """Move the average towards the mean of logits (M, K). M must be the same on all ranks."""
        self.value.lerp_(global_count(logits.to(self.value.dtype).mean(0)), 1 - self.momentum)
