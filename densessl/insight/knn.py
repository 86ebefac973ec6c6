"""k-nearest-neighbour accuracy of frozen features: whether images of one class are close together.

It needs no training and no hyper-parameter search.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from densessl.augment.photometric import IMAGENET_MEAN, IMAGENET_STD
from densessl.data.decode import read_image
from densessl.data.placed import central_square, crop, resize
from densessl.data.sources import DataNotFound, list_images
from densessl.losses import unit
from densessl.wording import at_least


def labelled_images(folder: str | Path) -> tuple[list[Path], Tensor, list[str]]:
    """List the images of a folder that has one subfolder per class.

    Returns:
        paths of the N images, their labels (N,) int64, and the names of the classes.

    Raises:
        DataNotFound: the folder has fewer than two classes.
    """
    listed = list_images(str(folder))
    paths = [Path(name) for name in listed.paths]
    names = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    if len(names) < 2:
        raise DataNotFound(f"{folder}: expected a folder of images for each of two or more classes, found {names}")
    numbers = {name: number for number, name in enumerate(names)}
    kept = [path for path in paths if len(path.parts) > 1]
    labels = torch.tensor([numbers[path.parts[0]] for path in kept])
    return [Path(listed.root, path) for path in kept], labels, names


def central_squares(paths: list[Path], size: int, batch_size: int = 64) -> Iterator[Tensor]:
    """Yield the central squares of images, resized to ``size``, in batches (n, 3, size, size) float, 0 to 255."""
    at_least("--size", size, 1)
    for start in range(0, len(paths), batch_size):
        squares = []
        for path in paths[start : start + batch_size]:
            image = read_image(path)
            squares.append(resize(crop(image, *central_square(image.size)), (size, size)).image)
        yield torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).float()


@torch.no_grad()
def pooled_features(
    backbone: nn.Module,
    paths: list[Path],
    size: int = 160,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> list[Tensor]:
    """Average-pool the maps of a backbone in evaluation mode; its mode is restored.

    Args:
        size: side in pixels of the images' central squares.
        mean, std: normalisation of the images' three channels, whose values are from 0 to 255.

    Returns:
        (N, C_l) for each level l of the backbone.
    """
    device = next((tensor.device for tensor in backbone.parameters()), torch.device("cpu"))
    training = backbone.training
    backbone.eval()
    levels: list[list[Tensor]] = []
    try:
        for images in central_squares(paths, size):
            images = (images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1)
            levels.append([item.mean((2, 3)).cpu() for item in backbone(images.to(device))])
    finally:
        backbone.train(training)
    return [torch.cat(column) for column in zip(*levels)]


def leave_one_out_knn(features: Tensor, labels: Tensor, k: int = 10, temperature: float = 0.07) -> float:
    """Leave-one-out kNN accuracy, 0 to 1: the share of images whose class wins the vote of their ``k`` nearest others.

    Votes are weighted by exp(cosine / temperature), as in DINO. Each image is classified once by all others, so the
    result does not depend on a split. Always answering the largest class would reach that class's share.

    Args:
        features: (N, C).
        labels: (N,) int64.
        k: number of neighbours.
        temperature: softmax temperature of the votes.
    """
    at_least("-k", k, 1)
    vectors = unit(features)
    similarity = vectors @ vectors.T
    similarity.fill_diagonal_(-torch.inf)
    nearest, index = similarity.topk(min(k, len(vectors) - 1), dim=1)
    votes = torch.zeros(len(vectors), int(labels.max()) + 1, dtype=vectors.dtype)
    votes.scatter_add_(1, labels[index], (nearest / temperature).exp())
    return float((votes.argmax(1) == labels).float().mean())
