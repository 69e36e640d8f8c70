"""Covariances in one pass: they merge, they fuse, and their diagonal is what the moments say."""

import numpy as np
import pytest
import torch

from pruning.method.moments import Moments, SecondMoments, covariance, fuse


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(90, 7) @ torch.randn(7, 7) + 3


def test_batches_merge_to_the_covariance_of_all_tokens(x):
    merged = SecondMoments.of(x[:20]).merge(SecondMoments.of(x[20:55])).merge(SecondMoments.of(x[55:]))
    torch.testing.assert_close(merged.m2 / 90, torch.cov(x.double().T, correction=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(merged.mean, x.double().mean(0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_diagonal_is_the_sum_of_squares_of_the_moments(x, weighted):
    weights = torch.rand(90) + 0.1 if weighted else None
    plain, second = Moments.of(x, weights), SecondMoments.of(x, weights)
    torch.testing.assert_close(second.m2.diagonal(), plain.m2, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(second.mean, plain.mean, rtol=1e-6, atol=1e-6)


def test_a_mixture_has_the_covariance_of_the_pooled_sample(x):
    parts = {"a": SecondMoments.of(x[:30]), "b": SecondMoments.of(x[30:] * 2 + 1)}
    mean, found = covariance(parts, {"a": 1 / 3, "b": 2 / 3})
    pooled = torch.cat([x[:30], x[30:] * 2 + 1]).double()
    torch.testing.assert_close(found, torch.cov(pooled.T, correction=0), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(mean, pooled.mean(0), rtol=1e-5, atol=1e-5)


def test_removed_channels_are_nan_on_both_sides(x):
    kept = np.array([True] * 7 + [False, False])
    full = SecondMoments.of(x).in_dense_indices(kept)
    assert (
        np.isnan(full.m2[7:]).all() and np.isnan(full.m2[:, 7:]).all() and np.isfinite(full.m2[:7, :7]).all()
    )


def test_fusion_goes_from_the_mean_to_the_domain_with_the_largest_variance(x):
    parts = {"a": Moments.of(x), "b": Moments.of(x * torch.tensor([2.0, 0.5, 1, 1, 1, 1, 1]))}
    weights = {"a": 0.5, "b": 0.5}
    largest = torch.maximum(parts["a"].variance, parts["b"].variance)
    torch.testing.assert_close(fuse(parts, weights, worst_domain=1.0).variance, largest)
    half = (fuse(parts, weights).variance + largest) / 2
    torch.testing.assert_close(fuse(parts, weights, worst_domain=0.5).variance, half)
