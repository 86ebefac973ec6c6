"""Convert batches to MMDetection's data samples."""

import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from densessl.data.batch import Batch


def data_samples(batch: Batch) -> list[DetDataSample]:
    """One data sample for each image, with its regions as boxes of class 0 in pixels of the padded view.

    ``gt_instances.rows`` (K,) are the rows of the regions in ``batch.regions``. Sizes are those of MMDetection's
    preprocessor: ``img_shape`` without padding, ``batch_input_shape`` with padding.
    """
    regions, geometry = batch.regions, batch.geometry[0]
    padded = tuple(batch.views[0].shape[-2:])
    boxes = regions.boxes[0].to(torch.promote_types(batch.views[0].dtype, torch.float32))
    counts = torch.bincount(regions.owner, minlength=len(batch.keys)).tolist()
    rows = torch.arange(len(boxes), device=boxes.device).split(counts)
    samples = []
    for (width, height), image_rows in zip(geometry.view_size.long().tolist(), rows):
        sample = DetDataSample(metainfo=dict(img_shape=(height, width), batch_input_shape=padded, pad_shape=padded))
        labels = torch.zeros_like(image_rows)
        sample.gt_instances = InstanceData(bboxes=boxes[image_rows], labels=labels, rows=image_rows)
        samples.append(sample)
    return samples
