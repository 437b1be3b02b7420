"""Coherent shrinkage of both targets, and the path of the likelihood ratio over it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone

from cmstats import CCA, ConditionalGaussian, Moments, MultiviewCCA, retrieval_report
from cmstats.moments.folds import GridScores
from cmstats.moments.likelihood_path import LikelihoodPath
from cmstats.rows.reservoir import merged_samples, sample_folds
from cmstats.rows.splits import Folds


def views(n: int, p: int, q: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, max(p, q))) * np.linspace(0.5, 2, max(p, q))
    return z[:, :p] + rng.normal(size=(n, p)) + 3, z[:, :q] + 0.7 * rng.normal(size=(n, q))


def joint(m: Any) -> Any:
    return np.block([[m.cov(a, b) for b in m.names] for a in m.names])


@pytest.mark.parametrize("form", ["scatter", "root"])
@pytest.mark.parametrize("shrinkage", [(0.3, 0.3), (0.1, 1.0), (0.0, 0.5)])
def test_the_aligned_target_is_a_multiple_of_the_identity(form: Any, shrinkage: Any) -> None:
    X, Y = views(20, 6, 6)
    m = Moments.from_data(x=X, y=Y, form=form)
    C, (s, t) = np.cov(X.T, Y.T), shrinkage
    expected = (1 - s) ** 0.5 * (1 - t) ** 0.5 * C[:6, 6:]
    expected += (s * t) ** 0.5 * np.trace(C[:6, 6:]) / 6 * np.eye(6)
    found = m.shrunk(shrinkage, target="aligned")
    np.testing.assert_allclose(found.cov("x", "y"), expected, atol=1e-12)
    B = np.random.default_rng(0).normal(size=(6, 2))
    np.testing.assert_allclose(found.project("x", "y", B), expected @ B, atol=1e-12)
    with pytest.raises(KeyError, match="no block 'z': the blocks are x, y"):
        found.cov("x", "z")
    cross, gain = found.cross("x", "y")
    white = found.whiten("x").weights.T @ expected @ found.whiten("y").weights
    np.testing.assert_allclose(gain * cross, white, atol=1e-12)
    assert np.linalg.eigvalsh(joint(found)).min() > -1e-12


def test_the_aligned_joint_of_several_blocks_is_positive_semi_definite() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(15, 5))
    m = Moments.from_data(a=X, b=-X, c=rng.normal(size=(15, 5)) + X)
    for s in ((0.2, 0.9, 0.5), (1.0, 1.0, 0.0), 1.0):
        assert np.linalg.eigvalsh(joint(m.shrunk(s, target="aligned"))).min() > -1e-6


def test_at_shrinkage_one_the_ratio_is_the_centred_inner_product_less_norms() -> None:
    X, Y = views(30, 50, 50)  # also in directions in which these rows do not vary
    A, B = views(6, 50, 50, seed=1)
    units = [(a.var(axis=0, ddof=1).mean()) ** 0.5 for a in (X, Y)]
    c = np.trace(np.cov(X.T, Y.T)[:50, 50:]) / 50 / units[0] / units[1]
    a, b = (A - X.mean(axis=0)) / units[0], (B - Y.mean(axis=0)) / units[1]
    norms = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :]
    expected = (c * a @ b.T - c * c * norms / 2) / (1 - c * c) - 25 * np.log(1 - c * c)
    cca = CCA(shrinkage=1.0, target="aligned").fit(X, Y)
    model = ConditionalGaussian(shrinkage=1.0, target="aligned").fit(X, Y)
    found = cca.similarity(A, B, kind="likelihood_ratio")
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(model.similarity(A, B), expected, rtol=1e-9)


@pytest.mark.parametrize("n", [100, 12])
def test_two_aligned_views_of_several_are_cca(n: int) -> None:
    X, Y = views(n, 9, 9)
    how: Any = {"shrinkage": 0.4, "target": "aligned"}
    two, several = CCA(**how).fit(X, Y), MultiviewCCA(**how).fit([X, Y])
    assert two.n_components_ == several.n_components_ == 9
    np.testing.assert_allclose(two.similarity(X, Y), several.similarity([X, Y]), atol=1e-10)


def test_views_of_other_widths_are_not_aligned() -> None:
    X, Y = views(30, 4, 3)
    sentence = "target='aligned' is for views in one space"
    for model in (CCA(target="aligned"), ConditionalGaussian(target="aligned")):
        with pytest.raises(ValueError, match=f"{sentence}.*x 4, y 3"):
            model.fit(X, Y)
        with pytest.raises(ValueError, match=sentence):
            model.set_params(shrinkage=0.5).fit_moments(Moments.from_data(x=X, y=Y))
    with pytest.raises(ValueError, match=sentence):
        MultiviewCCA(target="aligned").fit([X, Y])
    with pytest.raises(ValueError, match="set method='mcca'"):
        MultiviewCCA(target="aligned", method="gcca").fit([X, X])


def test_equal_views_have_a_finite_ratio() -> None:
    X, _ = views(20, 5, 5)
    model = ConditionalGaussian(shrinkage=0.9, target="aligned").fit(X, X)
    assert np.isfinite(model.similarity(X, X)).all()
    assert np.isfinite(LikelihoodPath.of(model.moments_, target="aligned").on(X, X).at(1.0)).all()


SHAPES = [
    (200, 8, 6, "independent", "scatter"),
    (200, 7, 7, "aligned", "scatter"),
    (60, 7, 7, "aligned", "root"),
    (12, 30, 30, "aligned", "root"),
    (12, 30, 30, "aligned", "scatter"),
    (25, 10, 30, "independent", "root"),
]


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize(("n", "p", "q", "target", "form"), SHAPES)
def test_the_path_is_the_canonical_form(
    n: int, p: int, q: int, target: Any, form: Any, scale: bool
) -> None:
    m = Moments.from_data(**dict(zip("xy", views(n, p, q), strict=True)), form=form)
    A, B = views(9, p, q, seed=1)
    held_out = Moments.from_data(x=A, y=B)
    path = LikelihoodPath.of(m, target=target, scale=scale)
    pairs, shrinkages = path.on(A, B[:7]), (0.001, 0.3, 0.9, 0.995)
    means = path.expected_ratio(held_out, shrinkages)
    for s, mean in zip(shrinkages, means, strict=True):
        model = ConditionalGaussian(shrinkage=s, target=target, scale=scale).fit_moments(m)
        expected = model.similarity(A, B)
        size = np.abs(expected).max()
        np.testing.assert_allclose(pairs.at(s), expected[:, :7], atol=1e-11 * size)
        assert mean == pytest.approx(np.diag(expected).mean(), abs=1e-11 * size)
        assert mean == pytest.approx(model.ratio_moments(held_out), abs=1e-11 * size)


RANKED = [
    (400, 120, 100, "independent", "scatter"),
    (400, 110, 110, "aligned", "root"),
    (230, 150, 150, "aligned", "root"),
    (230, 210, 20, "independent", "root"),
    (40, 150, 150, "aligned", "root"),
    (230, 150, 150, "independent", "scatter"),
]


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize(("n", "p", "q", "target", "form"), RANKED)
def test_scores_to_rank_are_those_of_the_path(
    n: int, p: int, q: int, target: Any, form: Any, scale: bool
) -> None:
    """In single precision, from tridiagonal matrices, whole or of the smaller Gram matrix."""
    m = Moments.from_data(**dict(zip("xy", views(n, p, q), strict=True)), form=form)
    A, B = views(15, p, q, seed=1)
    exact = LikelihoodPath.of(m, target=target, scale=scale).on(A, B)
    ranked = LikelihoodPath.of(m, target=target, scale=scale, to_rank=True).on(A, B)
    assert (ranked.path.joint.T.beside is not None) == (n > 200)
    for s, limit in ((0.001, 1e-2), (0.1, 1e-3), (0.7, 1e-3), (0.995, 1e-2)):
        expected = exact.at(s)
        np.testing.assert_allclose(ranked.at(s), expected, atol=limit * expected.std())


def test_a_path_has_no_zero_where_rows_are_fewer_than_columns() -> None:
    X, Y = views(9, 8, 8)
    with pytest.raises(ValueError, match="above 0"):
        LikelihoodPath.of(Moments.from_data(x=X, y=Y)).on(X, Y).at(0.0)


# ------------------------------------------------------------------------------- scoring
def folds_of(n: int) -> Any:
    return np.arange(n) % 3


@pytest.mark.ordinary
def test_retrieval_is_that_of_the_held_out_rows() -> None:
    X, Y = views(60, 5, 5)
    for model in (
        CCA(shrinkage="cv", scoring="R@1", cv=3),
        ConditionalGaussian(scoring="median_rank", cv=3, target="aligned"),
        ConditionalGaussian(scoring="mrr", cv=3, rank=2, scale=True),
    ):
        model.fit(X, Y)
        column = {"mrr": "MRR"}.get(model.scoring, model.scoring)
        kind = {"kind": "likelihood_ratio"} if isinstance(model, CCA) else {}
        for at in (0, 5, 12):
            one = clone(model).set_params(shrinkage=model.cv_shrinkages_[at])
            for k in range(3):
                held = folds_of(60) == k
                one.fit(X[~held], Y[~held])
                report = retrieval_report(*one.embed(X[held], Y[held], **kind), ks=[1])
                expected = report.loc["mean", column] * (-1 if column == "median_rank" else 1)
                assert model.cv_scores_[at, k] == pytest.approx(expected)


def test_a_likelihood_ratio_of_three_views_is_that_of_the_joint() -> None:
    X, Y = views(60, 4, 4)
    Z = X - views(60, 4, 4, seed=1)[1]
    several = MultiviewCCA(1, shrinkage="cv", scoring="likelihood_ratio", cv=3).fit([X, Y, Z])
    folds = Moments.folds(cv=3, view0=X, view1=Y, view2=Z)
    normal = ConditionalGaussian(cv=3).fit_moments(folds)
    np.testing.assert_allclose(several.cv_scores_, normal.cv_scores_)


def test_a_sample_of_each_fold_does_not_depend_on_how_rows_come() -> None:
    X, Y = views(500, 4, 3)
    weights = np.arange(500) % 4 != 1
    blocks, folds = {"x": X, "y": Y}, Folds(3)
    whole = sample_folds(blocks, folds, size=40)
    assert [len(rows["x"]) for rows in whole] == [40, 40, 40]
    parts: Any = None
    for cut in (slice(0, 1), slice(1, 200), slice(200, 500)):
        piece = {k: a[cut] for k, a in blocks.items()}
        new = sample_folds(piece, folds.part(cut.start, cut.stop), start=cut.start, size=40)
        parts = merged_samples(parts, new, size=40)
    for a, b in zip(whole, parts, strict=True):
        assert {k: v.tolist() for k, v in a.items()} == {k: v.tolist() for k, v in b.items()}
    kept = sample_folds(blocks, folds, weights)
    present = {tuple(row) for rows in kept for row in rows["x"]}
    assert present == {tuple(row) for row in X[weights]}


def test_incomplete_rows_are_not_ranked() -> None:
    X, Y = views(80, 4, 4)
    X[::5, 0] = np.nan
    model = CCA(shrinkage="cv", scoring="mrr", missing="em", cv=3).fit(X, Y)
    assert np.isfinite(model.cv_scores_).all()
    held, whole = folds_of(80) == 1, ~np.isnan(X).any(axis=1)
    one = CCA(shrinkage=model.cv_shrinkages_[4], missing="em").fit(X[~held], Y[~held])
    u, v = one.embed(X[held & whole], Y[held & whole], kind="likelihood_ratio")
    expected = retrieval_report(u, v).loc["mean", "MRR"]
    assert model.cv_scores_[4, 1] == pytest.approx(expected)


def test_what_cannot_be_scored_is_said() -> None:
    X, Y = views(30, 3, 3)
    folds = Moments.folds(cv=3, x=X, y=Y)
    with pytest.raises(ValueError, match="scoring='mrr' ranks held-out rows, which moments do not"):
        CCA(shrinkage="cv", scoring="mrr").fit_moments(folds)
    with pytest.raises(
        ValueError, match='scoring must be "correlation", "likelihood_ratio", "R@k"'
    ):
        CCA(shrinkage="cv", scoring="accuracy").fit(X, Y)
    blocks = Moments.folds(cv=3, a=X, b=Y)
    with pytest.raises(ValueError, match="scoring='correlation' is of two blocks named x and y"):
        ConditionalGaussian(scoring="correlation").fit_moments(blocks)


def test_retrieval_takes_streams_sparse_rows_and_a_mapped_file(tmp_path: Any) -> None:
    X, Y = views(90, 4, 4)
    model = CCA(shrinkage="cv", scoring="mrr", cv=3)
    expected = clone(model).fit(X, Y).cv_scores_
    np.save(tmp_path / "x.npy", X)
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    batches = [(X[i : i + 7], Y[i : i + 7]) for i in range(0, 90, 7)]
    for given in ((batches,), (stored, Y), (scipy.sparse.csr_array(X), Y)):
        np.testing.assert_allclose(clone(model).fit(*given).cv_scores_, expected, atol=1e-12)


def test_a_likelihood_ratio_that_rises_anew_near_shrinkage_1_does_not_choose() -> None:
    # Of halves of digits: columns of very different size, whose marginals fit badly there.
    means = [-4.8, 4.1, 10.4, 12.6, 13.4, 12.7, 11.4, 10.9, 12.3, 15.1, 17.8, 18.0, 9.0]
    scores, none = np.array(means)[:, None], np.zeros((13, 1))
    found = GridScores(scores, none, none, False)
    whole, gaps = ([SimpleNamespace(incomplete=lacking)] for lacking in (False, True))
    cca = CCA(shrinkage="cv")
    assert ConditionalGaussian()._best(found, whole) == 4
    assert cca._best(found, whole) == 11  # mean correlations
    assert cca._best(found, gaps) == 4
    assert CCA(shrinkage="cv", scoring="mrr")._best(found, gaps) == 11
    rising = GridScores(np.sort(scores, axis=0), none, none, False)
    assert ConditionalGaussian()._best(rising, whole) == 12
