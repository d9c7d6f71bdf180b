"""Measures of pairs against scipy's filters and hand-made cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from sfumato.core.errors import NonFiniteError, UsageError
from sfumato.evaluate.metrics import alignment, feature_distance, retrieval, ssim


def test_alignment_is_the_cosine() -> None:
    assert alignment(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [-1.0, 1.0]])).tolist() == pytest.approx([1.0, 0.0])
    with pytest.raises(UsageError, match="one caption for each"):
        alignment(torch.ones(2, 3), torch.ones(1, 3))


def test_retrieval_both_ways() -> None:
    captions = torch.eye(4)
    images = torch.eye(4)[[0, 1, 3, 2]]  # two pictures changed places
    found = retrieval(images, captions, at=(1, 2, 4))
    assert found.among == 4 and found.caption_at["1"].value == found.picture_at["1"].value == 0.5
    assert found.caption_at["4"].value == 1.0 and found.caption_at["1"].low > 0 and found.caption_at["1"].count == 4
    # A caption nearest to everything is found by its own picture alone; its way back is not symmetric.
    lopsided = retrieval(torch.tensor([[1.0, 0.0], [0.9, 0.3]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert lopsided.caption_at["1"].value == 0.5 and lopsided.picture_at["1"].value == 1.0


def test_retrieval_gives_nothing_for_embeddings_all_alike_but_equal_captions_are_one() -> None:
    assert retrieval(torch.ones(6, 3), torch.eye(6, 3) + torch.rand(6, 3)).picture_at["1"].value < 0.5
    assert retrieval(torch.ones(3, 3), torch.eye(3)).caption_at["1"].value == 0.0
    assert retrieval(torch.eye(3), torch.eye(3)[[0, 0, 2]]).picture_at["1"].value == 1.0
    with pytest.raises(NonFiniteError):
        retrieval(torch.full((2, 2), torch.nan), torch.eye(2))


def reference(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. with scipy's filter, as scikit-image computes it with `gaussian_weights=True, use_sample_covariance=False`."""

    def blur(z: np.ndarray) -> np.ndarray:
        return gaussian_filter(z, 1.5, truncate=3.5)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
    c1, c2 = 0.02**2, 0.06**2
    return float((((2 * mx * my + c1) * (2 * cov + c2)) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))[5:-5, 5:-5].mean())


def test_ssim_is_the_published_formula() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(2, 3, 24, 19, generator=g) * 2 - 1
    b = (a + 0.3 * torch.randn(a.shape, generator=g)).clamp(-1, 1)
    for row, found in enumerate(ssim(a, b).tolist()):
        pairs = zip(a[row].double().numpy(), b[row].double().numpy(), strict=True)
        assert found == pytest.approx(np.mean([reference(*pair) for pair in pairs]), abs=1e-12)
    assert ssim(a, a).tolist() == pytest.approx([1.0, 1.0])
    with pytest.raises(UsageError, match="11 pixels"):
        ssim(a[..., :8], b[..., :8])
    with pytest.raises(UsageError, match="equal shapes"):
        ssim(a, b[:1])


def test_feature_distance() -> None:
    g = torch.Generator().manual_seed(0)
    maps = [torch.rand(3, 4, 5, 5, generator=g), torch.rand(3, 8, 2, 2, generator=g)]
    other = [torch.rand(3, 4, 5, 5, generator=g), maps[1]]
    unit = [m / m.norm(dim=1, keepdim=True) for m in (maps[0], other[0])]
    expected = ((unit[0] - unit[1]) ** 2).sum(1).mean((1, 2)) / 2  # the second layer adds nothing, the mean is over two
    assert torch.allclose(feature_distance(maps, other), expected.double(), atol=1e-6)
    assert feature_distance(maps, [3 * m for m in maps]).tolist() == pytest.approx([0, 0, 0], abs=1e-9)
    apart = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    apart[0][0, 0], apart[1][0, 1] = 1, 1
    assert feature_distance([apart[0]], [apart[1]]).tolist() == pytest.approx([2.0])
    with pytest.raises(ValueError):
        feature_distance(maps, other[:1])
