"""The vote against a loop in float64, and the folders it reads."""

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.data.sources import DataNotFound
from densessl.insight.knn import labelled_images, leave_one_out_knn, pooled_features


@pytest.mark.parametrize("k", [1, 3, 30])
def test_leave_one_out_against_a_loop(k):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (25,), generator=generator)
    centres = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    features = centres[labels] + torch.randn(25, 6, generator=generator, dtype=torch.float64)
    right = 0
    for i in range(25):
        cosines = [
            (float(features[i] @ features[j] / features[i].norm() / features[j].norm()), int(labels[j]))
            for j in range(25)
            if j != i
        ]
        votes = np.zeros(4)
        for cosine, label in sorted(cosines, reverse=True)[:k]:
            votes[label] += np.exp(cosine / 0.07)
        right += votes.argmax() == labels[i]
    accuracy = leave_one_out_knn(features, labels, k)
    assert accuracy == pytest.approx(right / 25)
    assert 0.3 < accuracy < 1


def test_folders_are_classes(tmp_path):
    for name, colour in (("b", (0, 200, 0)), ("a", (200, 0, 0))):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (30 + number, 20), colour).save(tmp_path / name / f"{number}.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "loose.png")
    paths, labels, names = labelled_images(tmp_path)
    assert names == ["a", "b"]
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [path.parent.name for path in paths] == ["a"] * 3 + ["b"] * 3

    class Mean(torch.nn.Module):
        def forward(self, images):
            assert images.shape == (6, 3, 16, 16) and not self.training
            return (images, images[:, :1] * 2)

    first, second = pooled_features(Mean(), paths, 16, mean=(0, 0, 0), std=(2, 1, 1))
    assert first[0].tolist() == [100, 0, 0] and first[5].tolist() == [0, 200, 0]
    assert second[:, 0].tolist() == [200] * 3 + [0] * 3
    assert leave_one_out_knn(first, labels, 2) == 1


def test_a_flat_folder_is_refused(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "loose.png")
    with pytest.raises(DataNotFound, match="two or more classes"):
        labelled_images(tmp_path)
