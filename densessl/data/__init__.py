"""From image files to batches of views that carry their geometry."""

from densessl.data.batch import Batch, Sample, collate_views
from densessl.data.dataset import UnlabelledImages
from densessl.data.detection import RegionImages
from densessl.data.sampler import KeySampler
from densessl.data.views import ViewSpec

__all__ = ["Batch", "KeySampler", "RegionImages", "Sample", "UnlabelledImages", "ViewSpec", "collate_views"]
