import random
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.engine.statistics_files import read_statistics, write_statistics
from pruning.method.moments import Moments, fuse, relative_moments
from pruning.method.statistics import Observation
from pruning.models.geometry import Site


def truth(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two passes in float64."""
    x = x.astype(np.float64)
    mean = x.mean(axis=0)
    return mean, ((x - mean) ** 2).sum(axis=0)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    offset=st.sampled_from([0.0, 1.0, -300.0, 1e4]),
    scale=st.sampled_from([1e-2, 1.0, 50.0]),
    tree=st.randoms(use_true_random=False),
)
def test_any_batches_in_any_merge_tree_equal_two_passes(seed, sizes, offset, scale, tree):
    rng = np.random.default_rng(seed)
    batches = [(offset + scale * rng.standard_normal((n, 5))).astype(np.float32) for n in sizes]
    parts = [Moments.of(torch.from_numpy(batch)) for batch in batches]
    tree.shuffle(parts)
    while len(parts) > 1:
        a = parts.pop(tree.randrange(len(parts)))
        b = parts.pop(tree.randrange(len(parts)))
        parts.append(a.merge(b))
    mean, m2 = truth(np.concatenate(batches))
    assert parts[0].count == sum(sizes)
    np.testing.assert_allclose(parts[0].mean.numpy(), mean, rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(parts[0].m2.numpy(), m2, rtol=2e-4, atol=1e-9 * (1 + offset**2))


def test_a_large_mean_does_not_hide_a_tiny_variance():
    rng = np.random.default_rng(0)
    x = (1e4 + rng.integers(-4, 5, (4096, 3)) / 64).astype(np.float32)  # exact in float32
    moments = reduce(Moments.merge, (Moments.of(part) for part in torch.from_numpy(x).split(100)))
    mean, m2 = truth(x)
    np.testing.assert_allclose(moments.mean.numpy(), mean, rtol=1e-9)
    np.testing.assert_allclose(moments.variance.numpy(), m2 / 4095, rtol=1e-3)
    naive = (x**2).mean(axis=0) - x.mean(axis=0) ** 2  # what the project must never do
    assert not np.allclose(naive, m2 / 4095, rtol=0.5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_activations_are_summed_in_full(dtype):
    x = (torch.randn(3000, 4, generator=torch.manual_seed(0)) + 3).to(dtype)
    mean, m2 = truth(x.float().numpy())
    moments = Moments.of(x)
    np.testing.assert_allclose(moments.mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(moments.m2.numpy(), m2, rtol=1e-5)


def test_the_first_sample_counts():
    """The published code drops the variance within the first sample; one sample must have its own."""
    x = torch.randn(128, 3, generator=torch.manual_seed(1))
    np.testing.assert_allclose(Moments.of(x).variance.numpy(), x.double().var(dim=0).numpy(), rtol=1e-5)


def test_leading_dimensions_are_tokens():
    x = torch.randn(2, 7, 3, generator=torch.manual_seed(2))
    assert Moments.of(x).count == 14
    np.testing.assert_allclose(Moments.of(x).mean, Moments.of(x.reshape(14, 3)).mean)


def test_total_fusion_is_the_pooled_weighted_sample():
    """Domains replicated until token shares equal the weights make one sample with the same statistics."""
    rng = random.Random(3)
    parts = {n: np.random.default_rng(i).normal(i, 1 + i, (600, 4)) for i, n in enumerate("abc")}
    copies = {name: rng.randint(1, 5) for name in parts}
    moments = {
        n: Moments(600, x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).sum(axis=0)) for n, x in parts.items()
    }
    weights = {n: c / sum(copies.values()) for n, c in copies.items()}
    pooled = np.concatenate([np.tile(x, (copies[n], 1)) for n, x in parts.items()])
    fused = fuse(moments, weights, "total")
    np.testing.assert_allclose(fused.mean, pooled.mean(axis=0))
    np.testing.assert_allclose(fused.variance, pooled.var(axis=0), rtol=2 / 600)
    np.testing.assert_allclose(fused.mean_square, (pooled**2).mean(axis=0))


def test_within_fusion_is_the_weighted_mean_of_variances():
    moments = {
        "a": Moments(3, np.array([0.0]), np.array([4.0])),
        "b": Moments(5, np.array([10.0]), np.array([4.0])),
    }
    fused = fuse(moments, {"a": 0.25, "b": 0.75}, "within")
    assert fused.mean == pytest.approx(7.5)
    assert fused.variance == pytest.approx(0.25 * 2 + 0.75 * 1)


def test_one_domain_fuses_to_itself_by_either_rule():
    moments = {"a": Moments(9, np.array([1.0, 2.0]), np.array([8.0, 16.0]))}
    for rule in ("within", "total"):
        fused = fuse(moments, {"a": 1.0}, rule)
        np.testing.assert_array_equal(fused.mean, [1, 2])
        np.testing.assert_array_equal(fused.variance, [1, 2])


def test_moments_survive_the_disk_bit_for_bit(tmp_path):
    stored = {Site(0, "attn"): Moments(7, np.array([0.1, np.nan]), np.array([1 / 3, np.nan]))}
    write_statistics(tmp_path / "m.safetensors", stored)
    back = read_statistics(tmp_path / "m.safetensors", Moments)[Site(0, "attn")]
    assert back.count == 7
    np.testing.assert_array_equal(back.mean, stored[Site(0, "attn")].mean)
    np.testing.assert_array_equal(back.m2, stored[Site(0, "attn")].m2)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def test_a_file_that_is_not_whole_is_none(tmp_path):
    path = tmp_path / "m.safetensors"
    write_statistics(path, {Site(0, "mlp"): Moments(7, np.ones(50), np.ones(50))})
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    assert read_statistics(path, Moments) is None
    path.write_bytes(whole[:-9] + b"corrupted")
    assert read_statistics(path, Moments) is not None
    assert read_statistics(path, Moments, verify=True) is None
    path.write_bytes(whole)
    assert read_statistics(path, Moments, verify=True).keys() == {Site(0, "mlp")}


# --- weighted tokens


def weighted_truth(x, w):
    """Two passes in float64."""
    mean = (w[:, None] * x).sum(0) / w.sum()
    return mean, (w[:, None] * (x - mean) ** 2).sum(0)


def test_steadiness_is_the_mean_in_standard_deviations_whatever_tokens_weigh():
    x = np.random.default_rng(4).normal([6.0, -3.0, 0.0], [1.0, 3.0, 1.0], (20_000, 3))
    for weights in (None, torch.full((20_000,), 50.0, dtype=torch.float64)):
        fused = fuse({"a": Moments.of(torch.from_numpy(x), weights)}, {"a": 1.0})
        np.testing.assert_allclose(np.asarray(fused.steadiness), [6, 1, 0], atol=0.12)


def test_weighted_moments_merge_to_the_two_pass_result(tmp_path):
    rng = np.random.default_rng(3)
    x, w = rng.normal(5, 2, (60, 7)), rng.uniform(1e-4, 3, 60)
    parts = [
        Moments.of(torch.from_numpy(x[a:b]), torch.from_numpy(w[a:b])) for a, b in ((0, 1), (1, 20), (20, 60))
    ]
    merged = parts[0].merge(parts[1]).merge(parts[2])
    mean, m2 = weighted_truth(x, w)
    np.testing.assert_allclose(merged.mean, mean, rtol=1e-5)
    np.testing.assert_allclose(merged.m2, m2, rtol=1e-4)
    np.testing.assert_allclose(merged.mean_square, (w[:, None] * x**2).mean(0), rtol=1e-4)
    assert merged.count == 60 and merged.weight == pytest.approx(w.sum(), rel=1e-5)
    stored = merged.in_dense_indices(np.ones(7, bool))
    write_statistics(tmp_path / "w.safetensors", {Site(0, "mlp"): stored})
    back = read_statistics(tmp_path / "w.safetensors", Moments)[Site(0, "mlp")]
    assert back.weight == merged.weight and back.total == merged.total
    np.testing.assert_array_equal(back.m2, stored.m2)


def test_equal_weights_are_no_weights():
    x = torch.randn(30, 5, generator=torch.manual_seed(0))
    plain, ones = Moments.of(x), Moments.of(x, torch.ones(30))
    np.testing.assert_allclose(ones.mean, plain.mean)
    np.testing.assert_allclose(ones.variance, plain.variance)
    np.testing.assert_allclose(ones.mean_square, plain.mean_square)


def test_a_token_with_a_massive_activation_decides_nothing():
    """One whose residual stream is a thousand times the others', with a channel a thousand times as large."""
    generator = torch.manual_seed(1)
    x, residual = torch.randn(2, 50, 6, generator=generator), torch.randn(2, 50, 8, generator=generator)
    calm = relative_moments(Observation(x, residual)).variance
    x[0, 0, 3] *= 1e3
    residual[0, 0] *= 1e3
    relative = relative_moments(Observation(x, residual)).variance
    plain = Moments.of(x).variance
    assert plain[3] / plain.median() > 1000
    assert (relative / calm - 1).abs().max() < 0.5
