"""Turns the uint8 crops of the loader into normalised views on the device of the model."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from densessl.augment import Photometric, normalize
from densessl.augment.photometric import IMAGENET_MEAN, IMAGENET_STD, OpConfig
from densessl.constraints import Positive
from densessl.data.batch import Batch
from densessl.data.views import ViewConfig, ViewSpec, expand_views
from densessl.errors import SettingError
from densessl.geometry import ViewGeometry
from densessl.registry import MODELS


@MODELS.register_module()
class ViewPreprocessor(BaseDataPreprocessor):
    """Applies the photometric operations, with the random numbers that workers drew, and normalises.

    Args:
        views: the view configs of the data set.
        mean, std: means and standard deviations of RGB, in units of 0..255.
    """

    def __init__(
        self,
        views: Sequence[ViewConfig | ViewSpec],
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[Positive, Positive, Positive] = IMAGENET_STD,
    ):
        super().__init__()
        self.photometric = [Photometric(spec.photometric) for spec in expand_views(views)]
        self.mean = tuple(mean)
        self.std = tuple(std)

    def forward(self, data: Batch, training: bool = False) -> Batch:
        """The batch on the device, with normalised views in fp32.

        Raises:
            SettingError: data set and preprocessor have different views.
        """
        if len(data.views) != len(self.photometric):
            raise SettingError(
                f"the loader gives {len(data.views)} views, data_preprocessor.views describes {len(self.photometric)}: "
                "both must be the config's `views`"
            )
        data = data.to(self.device)
        with torch.no_grad(), torch.autocast(data.views[0].device.type, enabled=False):
            views = []
            for number, (view, draws, ops) in enumerate(zip(data.views, data.draws, self.photometric)):
                images = view.float() / 255
                if "photometric" in draws:  # otherwise the workers applied them
                    found = draws["photometric"].shape[1]
                    if found != ops.width:
                        raise SettingError(
                            f"view {number} comes with {found} photometric numbers, data_preprocessor.views[{number}] "
                            f"needs {ops.width}: both must be the config's `views`"
                        )
                    images = ops(images, draws["photometric"])
                views.append(normalize(images, self.mean, self.std))
        return data._replace(views=views)


@MODELS.register_module()
class RegionPreprocessor(BaseDataPreprocessor):
    """Normalises whole images, whose padding becomes zero, and patches of regions. Before that it applies the
    photometric operations to the patches, with the random numbers that workers drew.

    Args:
        photometric: the configs of the data set's ``photometric``.
        mean, std: means and standard deviations of RGB, in units of 0..255.
    """

    def __init__(
        self,
        photometric: Sequence[OpConfig] = (),
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[Positive, Positive, Positive] = IMAGENET_STD,
    ):
        super().__init__()
        self.photometric = Photometric(photometric)
        self.mean = tuple(mean)
        self.std = tuple(std)

    def forward(self, data: Batch, training: bool = False) -> Batch:
        """The batch on the device, with normalised images and patches in fp32.

        Raises:
            SettingError: data set and preprocessor have different ``photometric``.
        """
        numbers = None if data.regions is None else data.regions.draws.get("photometric")
        data = data.to(self.device)
        with torch.no_grad(), torch.autocast(data.views[0].device.type, enabled=False):
            image = normalize(data.views[0].float() / 255, self.mean, self.std)
            image *= inside(data.geometry[0], image.shape[-2:])
            regions = data.regions
            if regions is not None and regions.patches is not None:
                if numbers.shape[1] != self.photometric.width:
                    raise SettingError(
                        f"patches come with {numbers.shape[1]} photometric numbers, data_preprocessor.photometric "
                        f"needs {self.photometric.width}: it must be that of the data set, `dataset.photometric`"
                    )
                patches = self.photometric(regions.patches.float() / 255, numbers)
                regions = regions._replace(patches=normalize(patches, self.mean, self.std))
        return data._replace(views=[image], regions=regions)


def inside(geometry: ViewGeometry, size: tuple[int, int]) -> Tensor:
    """Mask (N, 1, height, width) bool of the pixels of padded images that are not padding; ``size`` is (height,
    width)."""
    width, height = geometry.view_size.unbind(1)
    x, y = (torch.arange(n, device=width.device) for n in (size[1], size[0]))
    return ((y[:, None] < height[:, None, None]) & (x < width[:, None, None]))[:, None]
