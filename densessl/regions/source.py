"""Where a data set gets the regions of its images."""

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
    """Base of all sources: ``dataset.regions`` of a config.

    Args:
        select: configs of selections (:mod:`densessl.regions.select`), applied one after the other. What they draw is
            drawn anew in every epoch.
        uniforms: further random numbers of each region that an objective asks for, counts by name; they arrive as
            ``batch.regions.draws[name]``.
    """

    def __init__(self, select: Sequence[SelectionConfig] = (), uniforms: Mapping[str, Count] | None = None):
        self.select = [REGION_SELECTIONS.build(step) for step in select]
        self.uniforms = dict(uniforms or {})

    def propose(self, path: str, image: EncodedImage, rng: np.random.Generator, epoch: int) -> Proposals:
        """Proposals in source pixels.

        Args:
            path: of the image, relative to the data set's root.
            image: its file, not decoded yet.
            rng: of this image in this epoch.
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
    """Regions made while training, anew in every epoch: for quick generators and small sets. A store
    (:class:`densessl.regions.RegionStore`) makes them once.

    Args:
        generator: config of a generator (:mod:`densessl.regions.generators`).
    """

    def __init__(self, generator: Annotated[dict, Config(REGION_GENERATORS, trial=True)], **kwargs):
        super().__init__(**kwargs)
        self.generator = REGION_GENERATORS.build(generator)

    def propose(self, path: str, image: EncodedImage, rng: np.random.Generator, epoch: int) -> Proposals:
        return self.generator(image.decode().image, rng)
