"""The sampler that keys every sample by (epoch, index)."""

from collections.abc import Iterator

from mmengine.dist import get_dist_info
from torch.utils.data import Dataset, Sampler

from densessl.data.rng import keyed_rng
from densessl.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class KeySampler(Sampler):
    """Yields (epoch, index), shuffled per epoch, dealt to the ranks in turns.

    The order is a function of (seed, epoch). Rank r of R takes positions r, r + R, …, so batch t of all ranks put
    together holds the same images as batch t of one process with R times the batch size. What does not divide by R is
    left out, as ``drop_last`` leaves out what does not divide by the batch.

    Args:
        dataset: if it has ``set_seed``, it is given the seed of the run, so that one seed governs all draws.
        seed: of the run.
        shuffle: in random order, else in order of index.
    """

    def __init__(self, dataset: Dataset, seed: int | None = None, shuffle: bool = True):
        self.rank, self.world_size = get_dist_info()
        self.length = len(dataset)
        self.seed = seed or 0
        self.shuffle = shuffle
        self.epoch = 0
        if hasattr(dataset, "set_seed"):
            dataset.set_seed(self.seed)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = (
            keyed_rng(self.seed, "order", self.epoch).permutation(self.length) if self.shuffle else range(self.length)
        )
        for position in range(self.rank, self.length - self.length % self.world_size, self.world_size):
            yield self.epoch, int(order[position])

    def __len__(self) -> int:
        return self.length // self.world_size

    def set_epoch(self, epoch: int) -> None:
        """Called by MMEngine's DistSamplerSeedHook before each epoch, in the main process."""
        self.epoch = epoch
