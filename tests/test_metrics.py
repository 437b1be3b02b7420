"""Retrieval metrics: definitions, ids and labels, chance, scorers, published numbers."""

from __future__ import annotations

import functools
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA as SklearnCCA
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV

from cmstats import CCA, Moments, metrics
from cmstats.arrays import device_of
from cmstats.metrics import (
    HubnessCorrection,
    linear_cka,
    make_retrieval_scorer,
    mean_average_precision,
    mean_reciprocal_rank,
    median_rank,
    mutual_knn_alignment,
    procrustes_distance,
    pwcca,
    recall_at_10_scorer,
    recall_at_k,
    retrieval_chance,
    retrieval_report,
    search,
    svcca,
    total_correlation_scorer,
)
from cmstats.rows.splits import by_number


def pairs(n=120, d=8, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(n, d))
    return U, U + noise * rng.normal(size=(n, d))


def brute_map(scores, own, other):
    own, other = np.asarray(own), np.asarray(other)
    rows = [average_precision_score(other == own[i], row) for i, row in enumerate(scores)]
    return np.mean(rows)


# ------------------------------------------------------------------------------- report
def test_report_has_the_promised_rows_and_columns():
    report = retrieval_report(*pairs())
    assert isinstance(report, pd.DataFrame)
    assert list(report.index) == ["x -> y", "y -> x", "mean"]
    names = ["R@1", "R@5", "R@10", "median_rank", "MRR", "mAP", "n_queries", "n_candidates"]
    assert list(report.columns) == names
    np.testing.assert_allclose(report.iloc[2], report.iloc[:2].mean())
    assert (report[["n_queries", "n_candidates"]] == 120).all(axis=None)
    assert retrieval_report(*pairs(), ks=[3]).columns[0] == "R@3"


def test_report_equals_the_definitions():
    U, V = pairs()
    S = U @ V.T
    report = retrieval_report(U, V)
    for name, scores in (("x -> y", S), ("y -> x", S.T)):
        ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
        row = report.loc[name]
        for k in (1, 5, 10):
            assert row[f"R@{k}"] == np.mean(ranks <= k)
        assert row["median_rank"] == np.median(ranks)
        assert row["MRR"] == pytest.approx(np.mean(1 / ranks), rel=1e-12)
        assert row["mAP"] == pytest.approx(row["MRR"], rel=1e-12)  # one relevant, no ties
    pd.testing.assert_frame_equal(report, retrieval_report(S))
    one = report.loc["x -> y"]
    assert recall_at_k(U, V, k=5) == recall_at_k(S, k=5) == one["R@5"]
    assert median_rank(U, V) == one["median_rank"]
    assert mean_reciprocal_rank(U, V) == one["MRR"]
    assert mean_average_precision(U, V) == one["mAP"]


@pytest.mark.ordinary
def test_labels_change_only_map():
    U, V = pairs()
    labels = np.random.default_rng(1).choice(["cat", "dog", "owl"], 120)
    plain, report = retrieval_report(U, V), retrieval_report(U, V, labels=labels)
    pd.testing.assert_frame_equal(plain.drop(columns="mAP"), report.drop(columns="mAP"))
    assert report.at["x -> y", "mAP"] == pytest.approx(brute_map(U @ V.T, labels, labels))
    assert report.at["y -> x", "mAP"] == pytest.approx(brute_map(V @ U.T, labels, labels))
    assert mean_average_precision(U, V, labels=pd.Series(labels)) == report.at["x -> y", "mAP"]


def test_five_captions_per_image():
    rng = np.random.default_rng(0)
    U = rng.normal(size=(30, 6))
    owner = np.repeat(np.arange(30), 5)
    V = U[owner] + rng.normal(size=(150, 6))
    S = U @ V.T
    report = retrieval_report(U, V, y_ids=owner)
    best = np.where(owner == np.arange(30)[:, None], S, -np.inf).max(axis=1)
    ranks = 1 + (best[:, None] < S).sum(axis=1)
    assert report.at["x -> y", "R@1"] == np.mean(ranks == 1)
    own = S[owner, np.arange(150)]
    back = 1 + (own[:, None] < S.T).sum(axis=1)
    assert report.at["y -> x", "R@5"] == np.mean(back <= 5)
    assert report.at["x -> y", "mAP"] == pytest.approx(brute_map(S, np.arange(30), owner))
    assert report["n_queries"].tolist() == [30, 150, 90]
    assert report["n_candidates"].tolist() == [150, 30, 90]
    # Names do as well as numbers, in any order of the rows.
    names = np.array([f"image {i}" for i in range(30)])
    order = rng.permutation(150)
    shuffled = retrieval_report(U, V[order], x_ids=names, y_ids=names[owner][order])
    pd.testing.assert_frame_equal(shuffled, report)


def test_labels_alone_make_pairs_when_the_lengths_differ():
    U, _ = pairs(40)
    V = np.random.default_rng(3).normal(size=(3, 8))
    labels = np.arange(40) % 3
    report = retrieval_report(U, V, labels=(labels, [0, 1, 2]))
    expected = retrieval_report(U, V, x_ids=labels, y_ids=[0, 1, 2])
    pd.testing.assert_frame_equal(report, expected)
    with pytest.raises(ValueError, match="40 and 3 items: pass x_ids and y_ids"):
        retrieval_report(U, V)
    with pytest.raises(ValueError, match="labels must be a pair"):
        retrieval_report(U, V, labels=labels)


def test_queries_without_a_partner_are_left_out_with_a_warning():
    U, V = pairs(20)
    ids = np.arange(20)
    with pytest.warns(
        UserWarning, match="5 of 20 queries of x -> y have no relevant candidate"
    ) as told:
        report = retrieval_report(U, V[:15], x_ids=ids, y_ids=ids[:15])
    assert len(told) == 1
    assert report["n_queries"].tolist()[:2] == [15, 15]
    expected = recall_at_k(U[:15], V[:15], k=5)
    assert report.at["x -> y", "R@5"] == expected
    with pytest.raises(ValueError, match="none of the 20 queries of x -> y has a relevant"):
        retrieval_report(U, V, x_ids=ids, y_ids=ids + 100)


def test_a_missing_label_is_relevant_to_nothing():
    U, V = pairs(6)
    labels = pd.Series(["a", None, "a", "b", "b", None])
    known = labels.notna().to_numpy()
    with pytest.warns(UserWarning, match="2 of 6 queries"):
        got = mean_average_precision(U, V, labels=labels)
    codes = np.array([0, 7, 0, 1, 1, 8])
    assert got == pytest.approx(brute_map((U @ V.T)[known], codes[known], codes))


def test_constant_scores_are_at_chance_not_perfect():
    report = retrieval_report(np.ones((99, 4), np.float32), np.ones((99, 4), np.float32))
    assert (report["median_rank"] == 50).all()
    np.testing.assert_allclose(report["R@10"], 10 / 99)  # the expectation
    assert report.at["mean", "mAP"] == pytest.approx(np.sum(1 / np.arange(1, 100)) / 99)


@given(st.integers(0, 10**6), st.integers(2, 30))
def test_swapping_the_views_swaps_the_directions(seed, n):
    U, V = pairs(n, seed=seed)
    labels = np.random.default_rng(seed).integers(0, 3, n)
    report, swapped = (retrieval_report(*v, labels=labels) for v in ((U, V), (V, U)))
    np.testing.assert_allclose(report.iloc[[1, 0, 2]], swapped, rtol=1e-12)


@given(st.integers(0, 10**6))
def test_the_order_of_the_pairs_does_not_matter(seed):
    U, V = pairs(30, seed=seed)
    rng = np.random.default_rng(seed)
    labels, order = rng.integers(0, 4, 30), rng.permutation(30)
    report = retrieval_report(U, V, labels=labels)
    moved = retrieval_report(U[order], V[order], labels=labels[order])
    np.testing.assert_allclose(report, moved, rtol=1e-12)


@pytest.mark.slow
# ------------------------------------------------------------------------------- chance
@pytest.mark.ordinary
@pytest.mark.parametrize(
    ("n", "m", "options"),
    [
        (40, None, {}),
        (10, 50, {"y_ids": np.repeat(np.arange(10), 5)}),
        (40, None, {"labels": np.arange(40) % 3}),
        (12, None, {"x_ids": np.arange(12) % 5, "y_ids": np.arange(12) % 5}),
    ],
)
def test_chance_is_the_average_over_random_scores(n, m, options):
    rng = np.random.default_rng(0)
    expected = retrieval_chance(n, m, ks=(1, 5), **options)
    reports = [
        retrieval_report(rng.normal(size=(n, m or n)), ks=(1, 5), **options) for _ in range(60)
    ]
    found = sum(reports) / len(reports)
    assert list(found.columns) == list(expected.columns)
    exact = ["R@1", "R@5", "MRR", "mAP", "n_queries", "n_candidates"]
    np.testing.assert_allclose(found[exact], expected[exact], rtol=0.2)
    np.testing.assert_allclose(found["median_rank"], expected["median_rank"], rtol=0.1, atol=0.5)


def test_chance_of_plain_pairs():
    chance = retrieval_chance(50).loc["mean"]
    assert chance["R@10"] == pytest.approx(0.2)
    assert chance["median_rank"] == 25.5
    assert [chance["MRR"], chance["mAP"]] == pytest.approx([np.mean(1 / np.arange(1, 51))] * 2)


def test_wikipedia_chance_is_the_published_one(data_file):
    labels = np.load(data_file("wikipedia_rasiwasia2010.npz"))["y_te"]
    assert retrieval_chance(693, labels=labels).at["mean", "mAP"] == pytest.approx(0.119, abs=1e-3)


# ------------------------------------------------------------------------------- search
def test_search_finds_the_largest_products():
    U, V = pairs(30)
    order = np.argsort(-(U @ V.T), axis=1)[:, :7]
    indices, scores = search(U, V, k=7)
    np.testing.assert_array_equal(indices, order)
    np.testing.assert_allclose(scores, np.take_along_axis(U @ V.T, order, axis=1))
    one = search(U[3], V, k=7)
    assert one[0].shape == (7,)
    np.testing.assert_array_equal(one[0], order[3])
    assert search(U, V, k=99)[0].shape == (30, 30)
    with pytest.raises(TypeError, match="needs the candidates"):
        search(U, None)


# --------------------------------------------------------------------------- namespaces
@pytest.mark.ordinary
@pytest.mark.parametrize("name", ["torch", "array_api_strict"])
def test_other_namespaces_give_the_same_table(name):
    xp = pytest.importorskip(name)
    device = xp.Device("device1") if name == "array_api_strict" else xp.device("cpu")
    U, V = pairs(50)
    labels = np.arange(50) % 4
    u, v, s, codes = (xp.asarray(a, device=device) for a in (U, V, U @ V.T, labels))
    expected = retrieval_report(U, V, labels=labels)
    for got in (
        retrieval_report(u, v, labels=codes),
        retrieval_report(s, labels=labels),
    ):
        pd.testing.assert_frame_equal(got, expected)
    indices, scores = search(u, v, 3)
    assert type(indices) is type(scores) is type(u)
    assert device_of(indices) == device_of(u)


def test_frames_lists_and_half_precision_are_accepted():
    U, V = (np.round(a * 4).astype(np.float16) for a in pairs(30))
    expected = retrieval_report(U.astype(float), V.astype(float))
    for got in (
        retrieval_report(U, V),
        retrieval_report(pd.DataFrame(U), pd.DataFrame(V)),
        retrieval_report(U.tolist(), V.tolist()),
        retrieval_report(pd.DataFrame(U.astype(float) @ V.T.astype(float))),
    ):
        pd.testing.assert_frame_equal(got, expected)


# ---------------------------------------------------------------------------- bad input
def test_bad_input_gets_one_sentence():
    U, V = pairs(10)
    bad = V.copy()
    bad[4, 2] = np.nan
    with pytest.raises(ValueError, match="V has 1 NaN value, the first at row 4, column 2"):
        retrieval_report(U, bad)
    with pytest.raises(ValueError, match="score matrix has 10 NaN values"):
        retrieval_report(U @ bad.T)
    with pytest.raises(ValueError, match="labels must be a vector with one value for each of"):
        retrieval_report(U, V, labels=[1, 2])
    with pytest.raises(ValueError, match="y_ids must be a vector"):
        recall_at_k(U, V, y_ids=[1, 2])
    with pytest.raises(ValueError, match="k=0 must be a whole number"):
        recall_at_k(U, V, k=0)
    with pytest.raises(ValueError, match="two-dimensional"):
        retrieval_report(U[0])
    with pytest.raises(ValueError, match="same number of columns"):
        retrieval_report(U, V[:, :3])


# ------------------------------------------------------------------------------ scorers
class Embedder:
    """A model whose embedding is its input, scaled by its kind."""

    def embed(self, X=None, y=None, *, kind="cosine"):
        return X, (y if kind == "cosine" else -y)


def test_retrieval_scorers_score_the_mean_of_both_directions():
    U, V = pairs()
    report = retrieval_report(U, V, ks=(3, 10)).loc["mean"]
    assert recall_at_10_scorer(Embedder(), U, V) == report["R@10"]
    for metric, sign in (("R@3", 1), ("MRR", 1), ("mAP", 1), ("median_rank", -1)):
        scorer = pickle.loads(pickle.dumps(make_retrieval_scorer(metric)))
        assert scorer(Embedder(), U, V) == sign * report[metric]
    worst = make_retrieval_scorer("median_rank", kind="other")(Embedder(), U, V)
    assert worst < -report["median_rank"]
    assert repr(scorer) == "make_retrieval_scorer('median_rank', kind=None)"
    for metric in ("R@0", "R@", "recall"):
        with pytest.raises(ValueError, match="metric must be"):
            make_retrieval_scorer(metric)


def test_total_correlation_sums_held_out_correlations():
    U, V = pairs(200, d=4)
    model = SklearnCCA(2).fit(U[:100], V[:100])
    u, v = model.transform(U[100:], V[100:])
    expected = sum(np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(2))
    assert total_correlation_scorer(model, U[100:], V[100:]) == pytest.approx(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search_cv = GridSearchCV(
            SklearnCCA(1), {"n_components": [1, 3]}, scoring=total_correlation_scorer, cv=3
        ).fit(U, V)
    assert search_cv.best_params_ == {"n_components": 3}


def test_total_correlation_of_a_constant_variate_is_nan_with_a_warning():
    class Constant:
        def transform(self, X, y):
            return X, 0 * y

    U, V = pairs(10)
    with pytest.warns(UserWarning, match="constant variate"):
        assert np.isnan(total_correlation_scorer(Constant(), U, V))


# ---------------------------------------------------------- similarity of representations
def views(n=60, p=7, q=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) + 3
    return X, X[:, : min(p, 3)] @ rng.normal(size=(min(p, 3), q)) + rng.normal(size=(n, q)) - 1


def debiased(X, Y):
    return linear_cka(X, Y, debiased=True)


def angle(X, Y):
    return procrustes_distance(X, Y, angular=True)


SHAPES = [(60, 7, 5), (30, 50, 8), (20, 60, 90)]
FROM_MOMENTS = [linear_cka, procrustes_distance, svcca, pwcca]


@pytest.mark.parametrize("shape", SHAPES)
def test_cka_is_the_cosine_of_centred_gram_matrices(shape):
    X, Y = views(*shape)
    K, L = ((a - a.mean(axis=0)) @ (a - a.mean(axis=0)).T for a in (X, Y))
    expected = np.sum(K * L) / np.linalg.norm(K) / np.linalg.norm(L)
    assert linear_cka(X, Y) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_debiased_cka_is_the_cosine_of_u_centred_gram_matrices(shape):
    """Szekely and Rizzo (2014): HSIC without bias is the product of U-centred matrices."""

    def u_centred(a):
        K, n = a @ a.T, len(a)
        np.fill_diagonal(K, 0)
        K = (
            K
            - K.sum(axis=0) / (n - 2)
            - K.sum(axis=1)[:, None] / (n - 2)
            + K.sum() / ((n - 1) * (n - 2))
        )
        np.fill_diagonal(K, 0)
        return K

    X, Y = views(*shape)
    K, L = u_centred(X), u_centred(Y)
    expected = np.sum(K * L) / np.linalg.norm(K) / np.linalg.norm(L)
    assert debiased(X, Y) == pytest.approx(expected, rel=1e-9)


def test_debiased_cka_of_independent_data_is_zero_on_average():
    rng = np.random.default_rng(0)
    sets = [(rng.normal(size=(30, 80)), rng.normal(size=(30, 60))) for _ in range(60)]
    found = np.array([[linear_cka(X, Y), debiased(X, Y)] for X, Y in sets])
    assert found[:, 0].min() > 0.6
    error = found[:, 1].std() / 60**0.5
    assert abs(found[:, 1].mean()) < 4 * error < 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_procrustes_distance_is_what_the_best_rotation_leaves(shape):
    from scipy.linalg import orthogonal_procrustes

    X, Y = (a - a.mean(axis=0) for a in views(*shape))
    width = max(X.shape[1], Y.shape[1])
    A, B = (np.pad(a / np.linalg.norm(a), ((0, 0), (0, width - a.shape[1]))) for a in (X, Y))
    R, _ = orthogonal_procrustes(A, B)
    expected = np.linalg.norm(A @ R - B) ** 2
    assert procrustes_distance(X, Y) == pytest.approx(expected, rel=1e-8)
    assert angle(X, Y) == pytest.approx(np.arccos(1 - expected / 2), rel=1e-7)


def test_the_angle_satisfies_the_triangle_inequality():
    rng = np.random.default_rng(0)
    for _ in range(20):
        X, Y, Z = (rng.normal(size=(12, 3)) for _ in range(3))
        assert angle(X, Z) <= angle(X, Y) + angle(Y, Z) + 1e-12


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.9, 0.99])
def test_svcca_is_cca_of_principal_components(shape, share):
    scores = []
    for a in views(*shape):
        u, s, _ = np.linalg.svd(a - a.mean(axis=0), full_matrices=False)
        k = int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), share)) + 1
        scores.append(u[:, :k])
    expected = np.linalg.svd(scores[0].T @ scores[1])[1].clip(0, 1).mean()
    assert svcca(*views(*shape), variance=share) == pytest.approx(expected, rel=1e-9)


def test_svcca_of_all_components_is_the_mean_correlation():
    X, Y = views()
    expected = CCA().fit(X, Y).correlations_
    assert svcca(X, Y, variance=1.0) == pytest.approx(expected.mean(), rel=1e-9)


def test_pwcca_weighs_correlations_by_what_they_tell_of_x():
    X, Y = views()
    cca = CCA().fit(X, Y)
    Xc = X - X.mean(axis=0)
    alpha = np.abs((Xc @ cca.x_weights_).T @ Xc).sum(axis=1)
    expected = np.sum(alpha * cca.correlations_) / alpha.sum()
    assert pwcca(X, Y) == pytest.approx(expected, rel=1e-9)


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_similarity_does_not_depend_on_rotation_scale_and_shift(seed, scale):
    X, Y = views(25, 4, 6, seed=seed)
    Q, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(6, 6)))
    moved = scale * (Y @ Q) + 5 * scale
    for measure in (*FROM_MOMENTS, debiased, angle):
        assert measure(X, moved) == pytest.approx(measure(X, Y), abs=1e-7), measure
    nearest = mutual_knn_alignment(X, moved, k=3, metric="euclidean")
    assert nearest == mutual_knn_alignment(X, Y, k=3, metric="euclidean")


@pytest.mark.parametrize("wide", [False, True])
def test_a_representation_is_equal_to_itself(wide):
    X, _ = views(20, 40) if wide else views()
    for measure in (linear_cka, svcca, pwcca, debiased):
        assert measure(X, X) == pytest.approx(1.0, abs=1e-9)
    assert procrustes_distance(X, X) == pytest.approx(0.0, abs=1e-12)
    assert mutual_knn_alignment(X, X, k=5) == 1.0


@pytest.mark.parametrize("measure", FROM_MOMENTS)
@pytest.mark.parametrize("form", ["scatter", "root"])
def test_moments_are_as_good_as_rows(measure, form):
    X, Y = views()
    m = Moments.from_data(form=form, x=X, y=Y)
    assert measure(m) == pytest.approx(measure(X, Y), rel=1e-9)
    named = Moments.from_data(form=form, image=X, text=Y)
    assert measure(named) == measure(m)
    parts = [Moments.from_data(x=X[a:b], y=Y[a:b]) for a, b in ((0, 20), (20, 60))]
    assert measure(parts[0] + parts[1]) == pytest.approx(measure(X, Y), rel=1e-9)


@pytest.mark.parametrize("measure", [*FROM_MOMENTS, linear_cka])
def test_weights_are_repeated_rows(measure):
    X, Y = views()
    w = np.arange(60) % 3
    twice = [np.repeat(a, w, axis=0) for a in (X, Y)]
    found = measure(X, Y, sample_weight=w)
    assert found == pytest.approx(measure(*twice), rel=1e-9)
    found = linear_cka(X, Y, debiased=True, sample_weight=w)
    assert found == pytest.approx(debiased(*twice), rel=1e-9)


@pytest.mark.parametrize("metric", ["cosine", "euclidean", "inner_product"])
def test_mutual_neighbours_are_those_of_brute_force(metric):
    X, Y = views(50, 4, 3)
    sets = []
    for a in (X, Y):
        a = a / np.linalg.norm(a, axis=1, keepdims=True) if metric == "cosine" else a
        S = a @ a.T
        if metric == "euclidean":
            S = -((a[:, None] - a[None]) ** 2).sum(axis=2)
        np.fill_diagonal(S, -np.inf)
        sets.append(np.argsort(-S, axis=1)[:, :6])
    shared = [len(set(a) & set(b)) for a, b in zip(*sets, strict=True)]
    assert mutual_knn_alignment(X, Y, k=6, metric=metric) == np.mean(shared) / 6


def test_unrelated_neighbours_agree_by_chance():
    rng = np.random.default_rng(0)
    found = [
        mutual_knn_alignment(rng.normal(size=(101, 6)), rng.normal(size=(101, 6)), k=10)
        for _ in range(20)
    ]
    assert np.mean(found) == pytest.approx(0.1, abs=0.01)


def test_equal_items_are_neighbours_of_each_other():
    X = np.repeat(np.eye(3), 4, axis=0)
    assert mutual_knn_alignment(X, X, k=3) == 1.0


@pytest.mark.parametrize("name", ["torch", "array_api_strict"])
def test_similarity_is_that_of_numpy_on_other_libraries(name):
    xp = pytest.importorskip(name)
    device = xp.Device("device1") if name == "array_api_strict" else xp.device("cpu")
    for shape in SHAPES[:2]:
        X, Y = views(*shape)
        x, y = (xp.asarray(a, device=device) for a in (X, Y))
        for measure in (*FROM_MOMENTS, debiased, angle):
            found = measure(x, y)
            assert type(found) is float
            assert found == pytest.approx(measure(X, Y), rel=1e-8)
        assert mutual_knn_alignment(x, y, k=4) == mutual_knn_alignment(X, Y, k=4)


def test_similarity_of_frames_vectors_and_single_precision():
    X, Y = views()
    y = Y[:, 0]
    assert linear_cka(pd.DataFrame(X), y) == linear_cka(X, y[:, None])
    for measure in (*FROM_MOMENTS, debiased):
        single = measure(X.astype(np.float32), Y.astype(np.float32))
        assert single == pytest.approx(measure(X, Y), abs=1e-5)


def test_a_view_that_does_not_vary_has_no_similarity():
    X, Y = views()
    for measure in (*FROM_MOMENTS, debiased):
        with pytest.warns(UserWarning, match="a view does not vary"):
            assert np.isnan(measure(X, 0 * Y + 0.1))


def test_bad_representations_raise_one_sentence():
    X, Y = views()
    m = Moments.from_data(x=X, y=Y)
    with pytest.raises(TypeError, match="pass the rows X and Y"):
        linear_cka(m, debiased=True)
    with pytest.raises(ValueError, match="at least 4 rows, got 3"):
        debiased(X[:3], Y[:3])
    with pytest.raises(TypeError, match="or the Moments of both"):
        linear_cka(X)
    with pytest.raises(TypeError, match="pass them alone"):
        svcca(m, Y)
    with pytest.raises(ValueError, match="blocks a, b, c: pass those of two"):
        linear_cka(Moments.from_data(a=X, b=Y, c=Y))
    with pytest.raises(ValueError, match=r"variance=0 must lie in \(0, 1\]"):
        svcca(X, Y, variance=0)
    for measure in (*FROM_MOMENTS, mutual_knn_alignment):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            measure(X, Y[:-1])
    with pytest.raises(ValueError, match=r"y has 1 NaN value"):
        linear_cka(X, np.where(np.arange(300).reshape(60, 5) == 7, np.nan, Y))
    for k in (0, 60, 2.5, True):
        with pytest.raises(ValueError, match="between 1 and 59 neighbours"):
            mutual_knn_alignment(X, Y, k=k)
    with pytest.raises(ValueError, match="metric='l1' is unknown"):
        mutual_knn_alignment(X, Y, metric="l1")


# ------------------------------------------------------------------------------ goldens
def test_wikipedia_correlation_matching_is_the_published_one(data_file):
    """Rasiwasia et al. 2010: mAP .249 / .196; here from CCA written out, shrinkage .01."""
    data = np.load(data_file("wikipedia_rasiwasia2010.npz"))
    train, test = ([data[f"{v}_{part}"].astype(float) for v in "IT"] for part in ("tr", "te"))
    centred = [a - a.mean(axis=0) for a in train]
    roots = []
    for a in centred:
        S = a.T @ a / len(a)
        S = 0.99 * S + 0.01 * np.trace(S) / len(S) * np.eye(len(S))
        roots.append(np.linalg.inv(np.linalg.cholesky(S)))
    left, _, right = np.linalg.svd(roots[0] @ (centred[0].T @ centred[1]) @ roots[1].T)
    weights = roots[0].T @ left[:, :5], roots[1].T @ right[:5].T
    U, V = ((b - a.mean(axis=0)) @ w for a, b, w in zip(train, test, weights, strict=True))
    U, V = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (U, V))
    report = retrieval_report(U, V, labels=data["y_te"])
    assert report.at["x -> y", "mAP"] == pytest.approx(0.249, abs=3e-3)
    assert report.at["y -> x", "mAP"] == pytest.approx(0.195, abs=3e-3)


def test_all_names_exist():
    for name in metrics.__all__:
        assert hasattr(metrics, name)


# ------------------------------------------------------------------------------- values
BIG = 2**53 + np.arange(60)


@pytest.mark.parametrize(
    ("x_ids", "y_ids"),
    [
        (BIG, BIG.astype(np.uint64)),
        (BIG, BIG.astype(object)),
        (pd.array(BIG, dtype="Int64"), BIG.astype(np.uint64)),
        (pd.Categorical(BIG.astype(str)), BIG.astype(str)),
        (pd.array(BIG.astype(str), dtype="string"), BIG.astype(str).astype(object)),
        (BIG.tolist(), pd.Series(BIG, index=BIG[::-1])),
        (np.arange(60.0), np.arange(60, dtype=np.int8)),
    ],
    ids=["uint64", "objects", "Int64", "category", "string", "series", "float"],
)
def test_ids_are_compared_as_values(x_ids, y_ids):
    U = np.eye(60)
    order = np.random.default_rng(0).permutation(60)
    right = recall_at_k(U, U[order], k=1, x_ids=x_ids, y_ids=np.asarray(y_ids)[order])
    assert right == 1.0
    # Neighbours in value, which are equal as doubles, are not the partners.
    assert recall_at_k(U, U, k=1, x_ids=x_ids, y_ids=np.roll(np.asarray(y_ids), 1)) == 0.0


def test_groups_are_compared_as_values():
    groups = np.repeat(BIG, 2)
    one = by_number(3, 120, groups)
    seen = by_number(3, 60, groups[:60])
    rest = by_number(3, 60, groups[60:].astype(np.uint64), start=60, seen=seen.groups)
    np.testing.assert_array_equal(one.numbers(120)[60:], rest.numbers(60))


@pytest.mark.parametrize("k", [np.inf, np.nan, "3", 0, 1.5, True, None])
def test_a_cut_off_is_a_whole_number(k):
    U, V = pairs(n=9)
    for call in (
        lambda: search(U, V, k=k),
        lambda: recall_at_k(U, V, k=k),
        lambda: retrieval_report(U, V, ks=[k]),
        lambda: mutual_knn_alignment(U, V, k=k),
    ):
        with pytest.raises(ValueError, match="must be a whole number"):
            call()
    for ks in ("15", 5, None):
        with pytest.raises(ValueError, match="must be a list of whole numbers"):
            retrieval_report(U, V, ks=ks)


SCALED = {
    "cka": linear_cka,
    "debiased": functools.partial(linear_cka, debiased=True),
    "procrustes": procrustes_distance,
    "pwcca": pwcca,
    "svcca": svcca,
    "knn": mutual_knn_alignment,
    "distances": functools.partial(mutual_knn_alignment, metric="euclidean"),
    "mrr": mean_reciprocal_rank,
    "hubness": lambda X, Y: retrieval_report(
        X, Y, hubness=HubnessCorrection(k=5).fit(X, Y)
    ).to_numpy(float),
}


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize(
    ("dtype", "power"), [("f8", 230), ("f8", -230), ("f4", 60), ("f4", -60), ("f4", -100)]
)
def test_what_does_not_depend_on_the_unit_is_the_same_in_any(
    name: str, dtype: str, power: int
) -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)).astype(dtype)
    Y = (X[:, ::-1] + 0.5 * rng.normal(size=(60, 4))).astype(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        found = SCALED[name](X * 2.0**power, Y * 2.0**power)
    expected = SCALED[name](X.astype(float), Y.astype(float))
    np.testing.assert_allclose(found, expected, atol=1e-4 if dtype == "f4" else 1e-10)


def test_inner_products_beyond_double_precision_are_one_sentence() -> None:
    X = np.eye(3)
    for power, match in ((600, "overflow"), (-600, "underflow")):
        with pytest.raises(ValueError, match=f"inner products of U and V {match} float64"):
            mean_reciprocal_rank(X * 2.0**power, X * 2.0**power)
        with pytest.raises(ValueError, match="leave the range of double precision"):
            HubnessCorrection().fit(X * 2.0**power, X)
