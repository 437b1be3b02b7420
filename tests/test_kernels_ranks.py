"""Ranks, top-k and average precision against brute force, on every namespace."""

from __future__ import annotations

import numpy as np
import pytest
from contract.places import Place
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import average_precision_score

from cmstats.arrays import device_of, to_numpy
from cmstats.kernels import ranks
from cmstats.kernels._cpu import ranks as cpu
from cmstats.kernels.ranks import average_precisions, partner_counts, partner_ranks, top_k

pytestmark = pytest.mark.usefixtures("two_threads")


def brute_ranks(scores, x_ids=None, y_ids=None):
    n, m = scores.shape
    x_ids = np.arange(n) if x_ids is None else np.asarray(x_ids)
    y_ids = np.arange(m) if y_ids is None else np.asarray(y_ids)
    out = np.full(n, np.nan)
    for i in range(n):
        relevant = y_ids == x_ids[i]
        if relevant.any():
            own = scores[i, relevant].max()
            others = scores[i, ~relevant]
            tied = (scores[i, relevant] == own).sum()
            out[i] = 1 + (others > own).sum() + (others == own).sum() / (tied + 1)
    return out


def brute_precisions(scores, x_ids, y_ids):
    """scikit-learn's average precision, where scores are equal the mean over all their places."""
    found = []
    for i in range(len(x_ids)):
        relevant, total = y_ids == x_ids[i], 0.0
        if len(np.unique(scores[i])) == len(y_ids):
            found.append(average_precision_score(relevant, scores[i]))
            continue
        for value in np.unique(scores[i][relevant]):
            run, above = scores[i] == value, scores[i] > value
            R, T = int((run & relevant).sum()), int(run.sum())
            for place in range(T):
                before = (above & relevant).sum() + place * (R - 1) / max(T - 1, 1)
                total += R / T * (1 + before) / (1 + above.sum() + place)
        found.append(total / relevant.sum())
    return np.array(found)


def embeddings(n, m, d=6, seed=0, dtype=np.float64, whole=False):
    rng = np.random.default_rng(seed)
    if whole:  # whole numbers: products are exact in any order, and ties are many
        return (rng.integers(-2, 3, (s, d)).astype(dtype) for s in (n, m))
    return (rng.normal(size=(s, d)).astype(dtype) for s in (n, m))


@pytest.fixture(params=["numpy", "torch", "array_api_strict:device1"])
def convert(request):
    """`convert(a)` is `a` in each array library in turn, in the dtype that it has."""
    place = Place(request.param)
    return lambda a: place.xp.asarray(a, device=place.device)


@pytest.fixture
def small_tiles(monkeypatch):
    """Many tiles in small cases."""
    monkeypatch.setattr(cpu, "TILE", (64, 64))
    for module in (cpu, ranks):
        monkeypatch.setattr(module, "BLOCK_SCORES", 5000)


# --------------------------------------------------------------------------- definition
@pytest.mark.parametrize("whole", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("n", [1, 64, 65, 200])
def test_ranks_equal_brute_force(convert, n, whole, small_tiles):
    U, V = embeddings(n, n, whole=whole)
    expected = brute_ranks(U @ V.T)
    u, v = convert(U), convert(V)
    got = partner_ranks(u, v)
    assert type(got) is type(u)
    assert device_of(got) == device_of(u)
    np.testing.assert_array_equal(to_numpy(got), expected)
    np.testing.assert_array_equal(to_numpy(partner_ranks(convert(U @ V.T))), expected)
    x, y = partner_counts(u, v)
    np.testing.assert_array_equal(to_numpy(x.ranks()), expected)
    np.testing.assert_array_equal(to_numpy(y.ranks()), brute_ranks(V @ U.T))


@pytest.mark.parametrize(
    ("n", "m", "groups"), [(70, 190, 40), (190, 70, 90), (130, 130, 3), (5, 150, 1)]
)
def test_ranks_with_ids_are_those_of_the_best_relevant_candidate(
    convert, n, m, groups, small_tiles
):
    U, V = embeddings(n, m, whole=True)
    rng = np.random.default_rng(1)
    ids = [rng.integers(0, groups, size) for size in (n, m)]
    scores = U @ V.T
    for order in (slice(None), np.s_[::-1]):
        x_ids, y_ids = ids[0][order], ids[1]
        u, s = convert(U[order].copy()), convert(scores[order].copy())
        expected = brute_ranks(scores[order], x_ids, y_ids)
        for a, b in ((u, convert(V)), (s, None)):
            x, y = partner_counts(a, b, x_ids=x_ids, y_ids=y_ids)
            np.testing.assert_array_equal(to_numpy(x.ranks()), expected)
            np.testing.assert_array_equal(
                to_numpy(y.ranks()), brute_ranks(scores[order].T, y_ids, x_ids)
            )
            alone = partner_ranks(a, b, x_ids=x_ids, y_ids=y_ids)
            np.testing.assert_array_equal(to_numpy(alone), expected)


def test_one_missing_side_of_ids_counts_up():
    U, V = embeddings(20, 100)
    y_ids = np.repeat(np.arange(20), 5)
    expected = brute_ranks(U @ V.T, np.arange(20), y_ids)
    np.testing.assert_array_equal(partner_ranks(U, V, y_ids=y_ids), expected)
    swapped = partner_ranks(V, U, x_ids=y_ids)
    np.testing.assert_array_equal(swapped, brute_ranks(V @ U.T, y_ids))


def test_a_query_without_a_relevant_candidate_has_rank_nan(convert):
    U, V = embeddings(4, 3)
    ids = {"x_ids": [0, 1, 2, 9], "y_ids": [2, 1, 0]}
    for f in (partner_ranks, average_precisions):
        got = to_numpy(f(convert(U), convert(V), **ids))
        np.testing.assert_array_equal(np.isnan(got), [False, False, False, True])


# --------------------------------------------------------------------------------- ties
@pytest.mark.parametrize("n", [1, 777])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_scores_are_at_chance(convert, n, dtype):
    U = np.full((n, 7), 0.1, dtype)
    V = np.full((n, 7), 0.3, dtype)
    assert set(to_numpy(partner_ranks(convert(U), convert(V))).tolist()) == {(n + 1) / 2}
    assert set(to_numpy(partner_ranks(convert(U @ V.T))).tolist()) == {(n + 1) / 2}


@pytest.mark.parametrize("d", [33, 128, 500])
def test_collapsed_float32_embeddings_are_at_chance(d):
    """OpenBLAS sums these in two orders within one tile, so equal vectors score unequally."""
    U, V = (np.full((700, d), value, np.float32) for value in (0.123, 0.456))
    x, y = partner_counts(U, V)
    assert set(x.ranks()) == set(y.ranks()) == {350.5}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_small_matrices_of_scores_are_counted_as_large_ones(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, (60, 60)).astype(dtype)
    scores[rng.random((60, 60)) < 0.1] = -np.inf
    small = partner_counts(scores)
    monkeypatch.setattr(ranks, "SMALL", 0)
    for found, expected in zip(small, partner_counts(scores), strict=True):
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b, strict=True)


def test_ties_within_relevant_candidates_cost_nothing():
    # Expected first position of 3 relevant ones among 11 in random order: 12 / 4.
    assert partner_ranks(np.zeros((1, 11)), x_ids=[0], y_ids=[0] * 3 + [1] * 8)[0] == 3
    assert partner_ranks(np.zeros((1, 4)), x_ids=[0], y_ids=[0] * 4)[0] == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "d"), [(1500, 33), (1100, 128)])
def test_equal_vectors_tie_wherever_they_stand(dtype, n, d):
    """Each vector occurs twice, far apart, so each partner ties exactly once."""
    rng = np.random.default_rng(0)
    half = rng.normal(size=(n // 2, d)).astype(dtype)
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    V = np.concatenate([half, half])
    np.testing.assert_array_equal(partner_ranks(V, V), np.full(n, 1.5))
    x, y = partner_counts(V, V)
    assert (x.ties == 1).all()
    assert (y.ties == 1).all()


def test_float32_items_do_not_outrank_themselves():
    """An own score computed elsewhere differs in the last bit for a third of the items."""
    rng = np.random.default_rng(0)
    U = rng.normal(size=(1200, 96)).astype(np.float32)
    U /= np.linalg.norm(U, axis=1, keepdims=True)
    assert (np.sum(U * U, axis=1) != np.diag(U @ U.T)).mean() > 0.1
    assert (partner_ranks(U, U) == 1).all()


# ------------------------------------------------------------------------------- dtypes
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_all_real_dtypes_are_ranked_in_the_right_precision(convert, dtype):
    if dtype is np.float16 and "strict" in type(convert(np.ones(1))).__module__:
        pytest.skip("array-api-strict has no float16")
    U, V = embeddings(90, 90, dtype=dtype, whole=True)
    got = partner_ranks(convert(U), convert(V))
    np.testing.assert_array_equal(to_numpy(got), brute_ranks(U.astype(float) @ V.T.astype(float)))
    scores = to_numpy(top_k(convert(U), convert(V), 3)[1])
    wide = dtype in (np.float64, np.int32)
    assert scores.dtype == (np.float64 if wide else np.float32)


@pytest.mark.torch
def test_bfloat16_embeddings_are_ranked():
    torch = pytest.importorskip("torch")
    U, V = embeddings(50, 50, whole=True)
    got = partner_ranks(torch.asarray(U).bfloat16(), torch.asarray(V).bfloat16())
    np.testing.assert_array_equal(to_numpy(got), brute_ranks(U @ V.T))


def test_raw_bfloat16_is_ranked_and_searched_in_memory_and_on_a_disk(tmp_path):
    """What np.load gives of bfloat16: values of two bytes without a type."""
    bits = next(iter(embeddings(40, 40))).astype(np.float32).view(np.uint32) >> 16
    raw, U = bits.astype(np.uint16).view("V2"), (bits << 16).view(np.float32)
    np.save(tmp_path / "u.npy", raw)
    for a in (raw, np.load(tmp_path / "u.npy", mmap_mode="r")):
        np.testing.assert_array_equal(partner_ranks(a, U[::-1].copy()), partner_ranks(U, U[::-1]))
        for found, expected in zip(top_k(a, a, 2), top_k(U, U, 2), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_float32_vectors_whose_products_overflow_are_ranked_in_float64():
    U, V = embeddings(40, 40)
    big = (U * 1e25).astype(np.float32), (V * 1e25).astype(np.float32)
    expected = brute_ranks(big[0].astype(float) @ big[1].T.astype(float))
    np.testing.assert_array_equal(partner_ranks(*big), expected)
    with pytest.raises(ValueError, match="overflow"):
        partner_ranks(U * 1e200, V * 1e200)


@pytest.mark.parametrize("layout", ["fortran", "strided", "memmap", "readonly"])
def test_memory_layout_does_not_matter(layout, tmp_path, small_tiles):
    U, V = embeddings(150, 150)
    expected = brute_ranks(U @ V.T)

    def lay(a, name):
        if layout == "fortran":
            return np.asfortranarray(a)
        if layout == "strided":
            return np.repeat(np.repeat(a, 2, axis=0), 3, axis=1)[::2, ::3]
        if layout == "memmap":
            np.save(tmp_path / name, a)
            return np.load(tmp_path / name, mmap_mode="r")
        a.flags.writeable = False
        return a

    u, v, s = (lay(a, f"{i}.npy") for i, a in enumerate((U, V, U @ V.T)))
    np.testing.assert_array_equal(partner_ranks(u, v), expected)
    np.testing.assert_array_equal(partner_ranks(s), expected)
    np.testing.assert_array_equal(top_k(u, v, 4)[0], np.argsort(-(U @ V.T), axis=1)[:, :4])


# -------------------------------------------------------------------------------- top-k
@pytest.mark.parametrize("k", [1, 10, 189, 1000])
@pytest.mark.parametrize("whole", [False, True], ids=["distinct", "ties"])
def test_top_k_equals_a_stable_sort(convert, k, whole, small_tiles):
    U, V = embeddings(70, 190, whole=whole)
    scores = U @ V.T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    for a, b in ((convert(U), convert(V)), (convert(scores), None)):
        indices, values = top_k(a, b, k)
        assert type(values) is type(a)
        assert device_of(indices) == device_of(a)
        np.testing.assert_array_equal(to_numpy(indices), order)
        expected = np.take_along_axis(scores, order, axis=1)
        np.testing.assert_allclose(to_numpy(values), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("k", [0, -1, 1.5, True])
def test_top_k_needs_a_whole_positive_k(k):
    with pytest.raises(ValueError, match="must be a whole number"):
        top_k(np.eye(3), None, k)


def test_masked_candidates_score_minus_infinity():
    scores = np.array([[1.0, -np.inf, 2.0], [-np.inf, -np.inf, 0.0], [0.0, 1.0, np.inf]])
    np.testing.assert_array_equal(partner_ranks(scores), [2, 2.5, 1])
    np.testing.assert_array_equal(top_k(scores, k=3)[0], [[2, 0, 1], [2, 0, 1], [2, 1, 0]])


# -------------------------------------------------------------------- average precision
@pytest.mark.parametrize("whole", [False, True], ids=["distinct", "ties"])
def test_average_precision_is_that_of_scikit_learn_in_random_order(convert, whole, small_tiles):
    U, V = embeddings(40, 130, whole=whole)
    rng = np.random.default_rng(2)
    x_ids, y_ids = rng.integers(0, 4, 40), rng.integers(0, 4, 130)
    expected = brute_precisions(U @ V.T, x_ids, y_ids)
    for a, b in ((convert(U), convert(V)), (convert(U @ V.T), None)):
        got = average_precisions(a, b, x_ids=x_ids, y_ids=y_ids)
        assert device_of(got) == device_of(a)
        np.testing.assert_allclose(to_numpy(got), expected, rtol=1e-12)
    pairs = average_precisions(convert(U), convert(V[:40]))
    every = np.arange(40)
    expected = brute_precisions(U @ V[:40].T, every, every)
    np.testing.assert_allclose(to_numpy(pairs), expected, rtol=1e-12)


# --------------------------------------------------------------------------- invariants
square = st.integers(1, 12).flatmap(
    lambda n: hnp.arrays(np.float64, (n, n), elements=st.integers(-4, 4).map(float))
)


@given(square)
def test_increasing_maps_of_the_scores_keep_all_ranks(scores):
    expected = partner_ranks(scores)
    for mapped in (scores * 3 - 7, np.exp(scores), np.arctan(scores), scores**3):
        np.testing.assert_array_equal(partner_ranks(mapped), expected)


@given(square, st.randoms(use_true_random=False))
def test_permuting_the_pairs_permutes_the_ranks(scores, random):
    order = np.array(random.sample(range(len(scores)), len(scores)))
    moved = scores[np.ix_(order, order)]
    np.testing.assert_array_equal(partner_ranks(moved), partner_ranks(scores)[order])
    # Permuting the candidates alone changes nothing when their ids move along.
    by_id = partner_ranks(scores[:, order], y_ids=order)
    np.testing.assert_array_equal(by_id, partner_ranks(scores))


@given(square)
def test_ranks_of_the_negated_scores_are_the_mirror_image(scores):
    np.testing.assert_array_equal(partner_ranks(-scores), len(scores) + 1 - partner_ranks(scores))


# ---------------------------------------------------------------------------- bad input
def test_nan_raises_and_says_where(convert):
    U, V = embeddings(6, 6)
    V[2, 3] = V[4, 0] = np.nan
    with pytest.raises(ValueError, match="V has 2 NaN values, the first at row 2, column 3"):
        partner_ranks(convert(U), convert(V))
    with pytest.raises(ValueError, match=r"score matrix has 12 NaN values, .* row 0, column 2"):
        partner_ranks(convert(U @ V.T))
    U[0, 0] = np.inf
    with pytest.raises(ValueError, match="U has 1 infinite value, the first at row 0, column 0"):
        top_k(convert(U), convert(U), 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((3, 2)), np.ones((3, 4))), r"columns, got shapes \(3, 2\) and \(3, 4\)"),
        ((np.ones((3, 2)), np.ones((4, 2))), "as many rows in U as in V, got 3 and 4"),
        ((np.ones((3, 2)),), "square score matrix, got 3 and 2"),
        ((np.ones((0, 2)), np.ones((0, 2))), r"0 sample\(s\)"),
        ((np.ones((3, 3), complex),), "Complex"),
        ((np.array([["a", "b"], ["c", "d"]]),), "not numbers"),
    ],
)
def test_shapes_that_do_not_fit_raise_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        partner_ranks(*arguments)


def test_ids_that_do_not_fit_raise_one_sentence():
    with pytest.raises(ValueError, match="x_ids must have one id for each of the 3 items, got 2"):
        partner_ranks(np.eye(3), x_ids=[0, 1])
    with pytest.raises(ValueError, match="y_ids must be a vector of integers"):
        partner_ranks(np.eye(3), y_ids=[0.5, 1, 2])


@pytest.mark.torch
def test_mixed_namespaces_raise():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="one array library"):
        partner_ranks(np.eye(3), torch.eye(3))


def test_sparse_input_raises_one_sentence():
    import scipy.sparse

    with pytest.raises(TypeError, match="U is sparse"):
        partner_ranks(scipy.sparse.eye_array(3).tocsr(), np.eye(3))


# -------------------------------------------------------------------------- concurrency
def test_blas_threads_are_restored_after_calls_from_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    import threadpoolctl

    def limits():
        return [lib["num_threads"] for lib in threadpoolctl.threadpool_info()]

    partner_ranks(np.eye(3))
    before = limits()
    U, V = embeddings(300, 300)
    expected = partner_ranks(U, V)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: partner_ranks(U, V), range(12)):
            np.testing.assert_array_equal(got, expected)
    assert limits() == before


def test_an_error_inside_a_worker_reaches_the_caller(monkeypatch):
    monkeypatch.setattr(cpu, "_count_rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        partner_ranks(np.eye(600))
