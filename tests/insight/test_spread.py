"""Collapse figures against loops in float64 and against spaces whose spread is known."""

import math

import numpy as np
import pytest
import torch

from densessl.figures import cell_vectors
from densessl.insight.spread import backbone_spread, between_image_similarity, channel_std, effective_rank, map_spread


def maps(*size, seed=0, dtype=torch.float64):
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype) + 0.3


def test_between_image_similarity_is_the_mean_over_pairs_of_different_images():
    m = maps(3, 5, 2, 4)
    cosines = []
    for n in range(3):
        for k in range(3):
            for p in range(8):
                for q in range(8):
                    if n != k:
                        a, b = m[n].flatten(1)[:, p].numpy(), m[k].flatten(1)[:, q].numpy()
                        cosines.append(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert between_image_similarity(m) == pytest.approx(np.mean(cosines), abs=1e-12)
    assert between_image_similarity(m * torch.rand(3, 1, 2, 4)) == pytest.approx(np.mean(cosines), abs=1e-12)


def test_between_image_similarity_extremes():
    same = maps(1, 6, 1, 1).expand(4, 6, 3, 3)
    assert between_image_similarity(same) == pytest.approx(1, abs=1e-12)
    # Each image constant, images orthogonal: cells of one image are alike, yet nothing has collapsed.
    assert between_image_similarity(torch.eye(4)[:, :, None, None].expand(4, 4, 3, 3)) == pytest.approx(0, abs=1e-6)
    assert between_image_similarity(torch.stack([same[0], -same[0]])) == pytest.approx(-1, abs=1e-12)
    with pytest.raises(ValueError, match="got 1, expected at least 2"):
        between_image_similarity(maps(1, 6, 3, 3))


def test_between_image_similarity_of_half_precision_is_computed_in_fp32():
    m = maps(16, 64, 14, 14).abs()
    expected = between_image_similarity(m.half().double())
    assert between_image_similarity(m.half()) == pytest.approx(expected, abs=1e-5)


def test_channel_std_loop_and_extremes():
    z = maps(7, 4)
    unit = [row / np.linalg.norm(row) for row in z.numpy()]
    stds = [math.sqrt(sum((u[c] - sum(v[c] for v in unit) / 7) ** 2 for u in unit) / 7) for c in range(4)]
    assert channel_std(z) == pytest.approx(sum(stds) / 4 * 2, abs=1e-12)
    assert channel_std(5 * z) == pytest.approx(channel_std(z), abs=1e-12)
    assert channel_std(z[:1].expand(9, 4)) == pytest.approx(0, abs=1e-12)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 5)  # corners of a cube: as even as can be
    assert channel_std(signs) == pytest.approx(1, abs=1e-6)
    assert channel_std(torch.cat([signs, signs + 1])) < 0.99


def test_effective_rank_of_known_spectra():
    q, _ = torch.linalg.qr(maps(20, 6))
    w, _ = torch.linalg.qr(maps(6, 6, seed=1))
    for values in ([1, 1, 1, 1, 1, 1], [3, 0, 0, 0, 0, 0], [2, 2, 2, 0, 0, 0], [5, 4, 1, 0.5, 0.1, 0]):
        shares = [value / sum(values) for value in values if value]
        expected = math.exp(-sum(share * math.log(share) for share in shares))
        matrix = q @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ w
        assert effective_rank(matrix) == pytest.approx(expected, rel=1e-9)
        assert effective_rank(matrix.T * 7) == pytest.approx(expected, rel=1e-9)
    assert effective_rank(maps(1, 6).expand(20, 6)) == pytest.approx(1, rel=1e-6)
    assert math.isnan(effective_rank(torch.zeros(4, 4)))


def test_cell_vectors_are_the_columns_of_the_maps():
    m = maps(2, 3, 2, 2)
    vectors = cell_vectors(m)
    assert vectors.shape == (8, 3)
    assert torch.equal(vectors[5], m[1, :, 0, 1])


def test_backbone_spread_chooses_the_level_in_evaluation_mode():
    class Backbone(torch.nn.Module):
        def forward(self, x):
            assert not self.training
            return x, x.mean(dim=(2, 3), keepdim=True)

    backbone, images = Backbone().train(), maps(5, 3, 4, 4, dtype=torch.float32)
    assert backbone_spread(backbone, images, level=0, batch_size=2) == map_spread(images)
    assert backbone_spread(backbone, images, batch_size=2)["effective_rank"] <= 3
    assert backbone.training
