"""Sources of regions for data sets: the base class, and generation during training."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np

from densessl.constraints import Config, Count
from densessl.data.batch import SampleRegions
from densessl.data.decode import EncodedImage
from densessl.data.rng import keyed_rng
from densessl.regions.proposals import Proposals
from densessl.registry import REGION_GENERATORS, REGION_SELECTIONS, REGIONS

SelectionConfig = Annotated[dict, Config(REGION_SELECTIONS, trial=True)]  # dict(type="TopK", k=30)


class RegionSource:
    """Base class of sources of regions, which a config sets as ``dataset.regions``.

    Args:
        select: configs of selections (:mod:`densessl.regions.select`), applied in order. Random ones draw anew in every
            epoch.
        uniforms: random numbers of each region that an objective needs, as counts by name. They are in
            ``batch.regions.draws[name]``.
    """

    def __init__(self, select: Sequence[SelectionConfig] = (), uniforms: Mapping[str, Count] | None = None):
        self.select = [REGION_SELECTIONS.build(step) for step in select]
        self.uniforms = dict(uniforms or {})

    def propose(self, path: str, image: EncodedImage, rng: np.random.Generator, epoch: int) -> Proposals:
        """Proposals for an image, in source pixels.

        Args:
            path: path of the image relative to the data set's root.
            image: the image, not decoded yet.
            rng: random generator for this image in this epoch.
            epoch: number of the epoch.
        """
        raise NotImplementedError(f"{type(self).__name__}.propose")

    def __call__(self, path: str, image: EncodedImage, seed: int, epoch: int, index: int) -> SampleRegions:
        """The selected regions of image ``index`` in ``epoch``."""
        found = self.propose(path, image, keyed_rng(seed, "regions.propose", epoch, index), epoch)
        rng = keyed_rng(seed, "regions.select", epoch, index)
        for step in self.select:
            found = step(found, image.source_size, rng)
        draws = {
            name: keyed_rng(seed, f"regions.{name}", epoch, index).random((len(found.boxes), count))
            for name, count in self.uniforms.items()
        }
        return SampleRegions(found.boxes, found.levels, draws)


@REGIONS.register_module()
class GeneratedRegions(RegionSource):
    """Generates regions during training, anew in every epoch.

    This suits fast generators and small data sets; otherwise generate regions once, into a store
    (:class:`densessl.regions.RegionStore`).

    Args:
        generator: config of a generator (:mod:`densessl.regions.generators`).
    """

    def __init__(self, generator: Annotated[dict, Config(REGION_GENERATORS, trial=True)], **kwargs):
        super().__init__(**kwargs)
        self.generator = REGION_GENERATORS.build(generator)

    def propose(self, path: str, image: EncodedImage, rng: np.random.Generator, epoch: int) -> Proposals:
        return self.generator(image.decode().image, rng)
