"""The sampler that keys every sample by (epoch, index)."""

from collections.abc import Iterator

from mmengine.dist import get_dist_info
from torch.utils.data import Dataset, Sampler

from densessl.data.rng import keyed_rng
from densessl.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class KeySampler(Sampler):
    """Yields keys (epoch, index), shuffled per epoch and dealt to the ranks in turns.

    The order is a function of (seed, epoch). Rank r of R takes positions r, r + R, …, so batch t of all ranks together
    holds the same images as batch t of one process with R times the batch size. The last images that do not fill a
    round of R are dropped, as ``drop_last`` drops those that do not fill a batch.

    Args:
        dataset: the data set. If it has ``set_seed``, the sampler passes it the seed, so that one seed governs all
            draws.
        seed: seed of the run; None is 0.
        shuffle: draw a random order for each epoch; False keeps the order of the indices.
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
        """Set the epoch; MMEngine's DistSamplerSeedHook calls this before each epoch, in the main process."""
        self.epoch = epoch
