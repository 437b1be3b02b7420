"""MultitaskRegressor against scikit-learn's Ridge and against closed forms written another way."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.sparse
from contract.places import DTYPES, PLACES, Place
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold

from cmstats import Moments, MomentsSearchCV
from cmstats.arrays import to_numpy
from cmstats.models.multitask import ALPHAS, MultitaskRegressor
from cmstats.models.ridge import HeldOut, Spectrum, plane_point

rng = np.random.default_rng(3)
N, P, Q = 153, 8, 6
X = rng.normal(size=(N, P)) @ rng.normal(size=(P, P)) + 2
Y = X[:, :4] @ rng.normal(size=(4, Q)) + 4 * np.arange(1, Q + 1) * rng.normal(size=(N, Q)) - 1
W = rng.integers(0, 4, N).astype(float)
FOLDS, THREE = (
    [(np.flatnonzero(np.arange(N) % m != k), np.arange(k, N, m)) for k in range(m)] for m in (5, 3)
)
GAPS = Y.copy()
GAPS[rng.random(Y.shape) < 0.3] = np.nan
GAPS[:, 3] = Y[:, 3]
GAPS[:, 4] = np.where(np.isnan(GAPS[:, 2]), np.nan, Y[:, 4])

intercept = pytest.mark.parametrize("fit_intercept", [True, False])
solver = pytest.mark.parametrize("solver", ["auto", "moments", "svd"])


def close(a: Any, b: Any, tol: float = 1e-10) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=tol * max(1.0, float(np.nanmax(np.abs(b)))))


def same(a: MultitaskRegressor, b: MultitaskRegressor, tol: float = 1e-10) -> None:
    for name in ("coef_", "intercept_", "alpha_", "task_n_samples_", "n_samples_", "rank_"):
        close(getattr(a, name), getattr(b, name), tol)
    if hasattr(b, "cv_scores_"):
        close(a.cv_scores_, b.cv_scores_, tol)


# ------------------------------------------------------------------- against scikit-learn
@solver
@intercept
@pytest.mark.parametrize("weights", [None, W])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 100.0, np.linspace(0.1, 30, Q)], ids=str)
def test_fixed_penalties_equal_ridge(
    solver: Any, fit_intercept: bool, weights: Any, alpha: Any
) -> None:
    found = MultitaskRegressor(alpha=alpha, solver=solver, fit_intercept=fit_intercept)
    found.fit(X, Y, weights)
    expected = Ridge(alpha, fit_intercept=fit_intercept).fit(X, Y, weights)
    close(found.coef_, expected.coef_)
    close(found.intercept_, expected.intercept_)
    close(found.predict(X), expected.predict(X))
    assert found.score(X, Y, weights) == pytest.approx(expected.score(X, Y, weights), abs=1e-12)


@pytest.mark.ordinary
@pytest.mark.parametrize("solver", ["moments", "svd"])
@intercept
def test_chosen_penalties_are_those_of_a_grid_search_for_each_task(
    solver: Any, fit_intercept: bool
) -> None:
    alphas = ALPHAS[:: 1 if solver == "moments" and fit_intercept else 4]
    how = {"solver": solver, "fit_intercept": fit_intercept, "alphas": alphas}
    found = MultitaskRegressor(**how).fit(X, Y)
    for j in (0, 5) if fit_intercept else (5,):
        search = GridSearchCV(Ridge(fit_intercept=fit_intercept), {"alpha": alphas}, cv=FOLDS)
        search.fit(X, Y[:, j])
        assert found.alpha_[j] == search.best_params_["alpha"]
        close(found.cv_scores_[:, j], search.cv_results_["mean_test_score"], 1e-12)
        close(found.coef_[j], search.best_estimator_.coef_)


def test_a_splitter_gives_the_folds_of_the_grid_search() -> None:
    cv = KFold(3, shuffle=True, random_state=0)
    found = MultitaskRegressor(cv=cv, alphas=[1.0, 30.0, 1000.0]).fit(X, Y[:, 0])
    search = GridSearchCV(Ridge(), {"alpha": [1.0, 30.0, 1000.0]}, cv=cv).fit(X, Y[:, 0])
    assert found.alpha_ == search.best_params_["alpha"]
    close(found.cv_scores_[:, 0], search.cv_results_["mean_test_score"], 1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_targets_that_are_constant_in_a_fold_follow_r2_score() -> None:
    rare = np.zeros((N, 2))
    rare[:40:5, 0] = 1  # only in the first fold
    found = MultitaskRegressor(alphas=[1.0, 1e4]).fit(X, rare)
    for j in range(2):
        search = GridSearchCV(Ridge(), {"alpha": [1.0, 1e4]}, cv=FOLDS).fit(X, rare[:, j])
        assert found.alpha_[j] == search.best_params_["alpha"]
        close(found.cv_scores_[:, j], search.cv_results_["mean_test_score"], 1e-12)
    assert found.score_tasks(X, rare)[1] == 1
    assert found.score_tasks(X, rare + np.array([0, 1]))[1] == 0


@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e3]))
def test_scores_of_tasks_equal_r2_score(seed: int, alpha: float) -> None:
    r = np.random.default_rng(seed)
    A, B = r.normal(size=(25, 3)) + r.normal(size=3), r.normal(size=(25, 2)) + 5
    w = r.integers(1, 4, 25)
    for fit_intercept in (True, False):
        m = MultitaskRegressor(alpha=alpha, fit_intercept=fit_intercept).fit(A[:12], B[:12])
        expected = r2_score(
            B[12:], m.predict(A[12:]), sample_weight=w[12:], multioutput="raw_values"
        )
        np.testing.assert_allclose(m.score_tasks(A[12:], B[12:], w[12:]), expected, rtol=1e-9)


# ------------------------------------------------------------------------------ the path
@pytest.mark.parametrize("form", ["scatter", "root"])
@pytest.mark.parametrize("kind", ["plain", "equal eigenvalues", "duplicates", "wide", "cond 1e4"])
def test_errors_of_a_path_equal_those_on_the_rows(form: Any, kind: str) -> None:
    n, p = (40, 90) if kind == "wide" else (300, 20)
    A = rng.normal(size=(n, p)) + 1
    if kind == "equal eigenvalues":
        A = np.eye(p)[np.arange(n) // 5 % p]
    elif kind == "duplicates":
        A[:, p // 2 :] = A[:, : p // 2]
    elif kind == "cond 1e4":
        A = (A * np.logspace(0, -4, p)) @ np.linalg.qr(rng.normal(size=(p, p)))[0]
    B = A @ rng.normal(size=(p, 3)) / A.std() + rng.normal(size=(n, 3)) * [1e-3, 1, 10]
    folds = Moments.folds(x=A, y=B, form=form)
    train = folds[1] + folds[2] + folds[3] + folds[4]
    spectrum = Spectrum.of(train)
    held = HeldOut.of(folds[0], plane_point(train, True), spectrum.vectors)
    test = np.arange(n) % 5 == 0
    mx, my = A[~test].mean(0), B[~test].mean(0)
    u, s, vt = np.linalg.svd(A[~test] - mx, full_matrices=False)
    for alpha, errors in zip(ALPHAS, held.path_errors(spectrum, ALPHAS), strict=True):
        coef = vt.T @ ((s / (s * s + alpha))[:, None] * (u.T @ (B[~test] - my)))
        expected = ((B[test] - my - (A[test] - mx) @ coef) ** 2).sum(0)
        tol = 1e-9 if (kind, form) == ("wide", "scatter") else 1e-12
        np.testing.assert_allclose((errors - expected) / held.yy, 0, atol=tol)
        np.testing.assert_allclose(held.errors(spectrum.over(alpha)) / held.yy, errors / held.yy,
                                   atol=1e-12)  # fmt: skip


# ------------------------------------------------------------------------- missing targets
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"alpha": 3.0},
        {"alpha": np.arange(1.0, Q + 1)},
        {"fit_intercept": False, "alphas": ALPHAS[::4]},
        {"solver": "svd", "alphas": ALPHAS[::4]},
    ],
    ids=str,
)
@pytest.mark.parametrize("weights", [None, W])
def test_missing_targets_equal_separate_fits_on_their_rows(
    parameters: dict[str, Any], weights: Any
) -> None:
    found = MultitaskRegressor(**parameters).fit(X, GAPS, weights)
    assert (2, 4) in found.moments_
    for j in range(Q):
        own = dict(parameters)
        if isinstance(own.get("alpha"), np.ndarray):
            own["alpha"] = own["alpha"][j]
        seen = ~np.isnan(GAPS[:, j])
        if "alpha" not in own:
            number = np.arange(N) if weights is None else np.cumsum(weights > 0) - 1
            ids = (np.maximum(number, 0) % 5)[seen]
            own["cv"] = [(np.flatnonzero(ids != k), np.flatnonzero(ids == k)) for k in range(5)]
        w = None if weights is None else weights[seen]
        expected = MultitaskRegressor(**own).fit(X[seen], GAPS[seen, j], w)
        close(found.coef_[j], expected.coef_)
        close(found.intercept_[j], expected.intercept_)
        assert found.task_n_samples_[j] == (seen.sum() if w is None else w.sum())
        if "alpha" not in parameters:
            assert found.alpha_[j] == expected.alpha_
            close(found.cv_scores_[:, j], expected.cv_scores_[:, 0])
        score = found.score_tasks(X, GAPS, weights)[j]
        assert score == pytest.approx(expected.score(X[seen], GAPS[seen, j], w), abs=1e-10)
    close(found.predict(X), X @ found.coef_.T + found.intercept_)
    assert found.score(X, GAPS, weights) == pytest.approx(
        found.score_tasks(X, GAPS, weights).mean(), abs=1e-14
    )


def test_rows_without_any_target_change_nothing() -> None:
    more = np.r_[X, X[:7] + 1]
    nothing = np.r_[Y, np.full((7, Q), np.nan)]
    same(MultitaskRegressor().fit(more, nothing), MultitaskRegressor().fit(X, Y))
    same(MultitaskRegressor(rank=2).fit(more, nothing), MultitaskRegressor(rank=2).fit(X, Y))
    one = MultitaskRegressor().fit(more, nothing[:, 0])
    assert one.predict(more).shape == (N + 7,)
    close(one.coef_, MultitaskRegressor().fit(X, Y[:, 0]).coef_)


def test_groups_of_tasks_part_as_rows_come() -> None:
    late = Y.copy()
    late[:100, 2:4] = np.nan  # two tasks that begin late
    late[120:, 3] = np.nan
    found = MultitaskRegressor(cv=3)
    found.partial_fit(X[:60], late[:60])
    assert not hasattr(found, "coef_")  # no row yet with the late ones
    for a, b in ((60, 100), (100, 130), (130, N)):
        found.partial_fit(X[a:b], late[a:b])
    assert [*found.moments_] == [(0, 1, 4, 5), (2,), (3,)]
    copied = pickle.loads(pickle.dumps(found)).moments_
    assert [*copied] == [*found.moments_]
    assert [m.n for m in copied[2,]] == [m.n for m in found.moments_[2,]]
    same(found, MultitaskRegressor(cv=3).fit(X, late))


@pytest.mark.ordinary
def test_fit_and_moments_may_be_continued() -> None:
    for parameters in ({}, {"alpha": 1.0}):
        expected = MultitaskRegressor(**parameters).fit(X, GAPS)
        began = MultitaskRegressor(**parameters).fit(X[:50], Y[:50])
        from_moments = MultitaskRegressor(**parameters).fit_moments(
            Moments.folds(x=X[:50], y=Y[:50])
        )
        both = np.r_[Y[:50], GAPS[50:]]
        expected = MultitaskRegressor(**parameters).fit(X, both)
        same(began.partial_fit(X[50:], GAPS[50:]), expected)
        same(from_moments.partial_fit(X[50:], GAPS[50:]), expected)


# --------------------------------------------------------------------------------- moments


@pytest.mark.ordinary
def test_views_are_their_columns_side_by_side() -> None:
    expected = MultitaskRegressor().fit(X, Y)
    a, b = X[:, :3], X[:, 3:]
    for views in ([a, b], (a, b), {"image": a, "text": b}):
        found = MultitaskRegressor().fit(views, Y)
        same(found, expected)
        close(found.predict(views), expected.predict(X))
        close(found.predict(X), expected.predict(X))
        close(found.score(views, Y), expected.score(X, Y))
        assert [*found.view_columns_.values()] == [slice(0, 3), slice(3, P)]
        same(MultitaskRegressor().partial_fit(views, GAPS), MultitaskRegressor().fit(X, GAPS))
    close(found.predict({"text": b, "image": a}), expected.predict(X))
    moments = Moments.folds(image=a, text=b, y=Y)
    named = MultitaskRegressor().fit_moments(moments)
    same(named, expected)
    close(named.predict({"text": b, "image": a}), expected.predict(X))
    swapped = Moments.from_data(y=Y, text=b, image=a)
    assert named.score_moments(swapped) == pytest.approx(expected.score(X, Y), abs=1e-12)
    frames = {"i": pd.DataFrame(a, columns=[*"abc"]), "t": pd.DataFrame(b, columns=[*"defgh"])}
    found = MultitaskRegressor(alpha=1.0).fit(frames, Y)
    assert [*found.feature_names_in_] == [*"abcdefgh"]
    with pytest.raises(ValueError, match=r"column 0 is 'z' where fit saw 'a'"):
        found.predict({**frames, "i": frames["i"].rename(columns={"a": "z"})})


@pytest.mark.ordinary
def test_sparse_views_and_memory_maps_equal_dense_ones(tmp_path: Any) -> None:
    S = scipy.sparse.random(N, 12, 0.3, format="csr", random_state=0)
    D = S.toarray()
    np.save(tmp_path / "x.npy", D)
    np.save(tmp_path / "y.npy", GAPS)
    disk = np.load(tmp_path / "x.npy", mmap_mode="r"), np.load(tmp_path / "y.npy", mmap_mode="r")
    for y in (Y, GAPS):
        expected = MultitaskRegressor().fit(D, y)
        same(MultitaskRegressor().fit(S, y), expected)
        close(expected.predict(S), expected.predict(D))
        both = MultitaskRegressor().fit([S, X], y)
        same(both, MultitaskRegressor().fit(np.c_[D, X], y))
        close(both.predict([S, X]), both.predict(np.c_[D, X]))
    same(MultitaskRegressor().fit(*disk), expected)
    close(expected.predict(disk[0]), expected.predict(D))


# ------------------------------------------------------------------------------------ rank
def objective(B: Any, A: Any, T: Any, alpha: float) -> float:
    return float(((T - A @ B) ** 2).sum() + alpha * (B**2).sum())


@solver
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("alpha", [0.5, 200.0])
def test_low_rank_equals_the_augmented_singular_vectors(solver: Any, k: int, alpha: float) -> None:
    found = MultitaskRegressor(alpha=alpha, rank=k, solver=solver).fit(X, Y)
    A, T = X - X.mean(0), Y - Y.mean(0)
    rows = np.r_[A, np.sqrt(alpha) * np.eye(P)]
    full = np.linalg.lstsq(rows, np.r_[T, np.zeros((P, Q))], rcond=None)[0]
    right = scipy.linalg.svd(rows @ full)[2][:k]
    close(found.coef_.T, full @ right.T @ right)
    assert np.linalg.matrix_rank(found.coef_, tol=1e-8) == found.rank_ == k


@given(st.integers(0, 10**6))
def test_low_rank_is_optimal(seed: int) -> None:
    r = np.random.default_rng(seed)
    alpha, k = 10 ** r.uniform(-2, 3), int(r.integers(1, 4))
    B = MultitaskRegressor(alpha=alpha, rank=k).fit(X, Y).coef_.T
    A, T = X - X.mean(0), Y - Y.mean(0)
    u, s, vt = np.linalg.svd(B, full_matrices=False)
    L, R = u[:, :k] * s[:k], vt[:k]
    best = objective(B, A, T, alpha)
    for size in (1e-3, 0.1, 1.0):
        other = (L + size * r.normal(size=L.shape)) @ (R + size * r.normal(size=R.shape))
        assert objective(other, A, T, alpha) >= best * (1 - 1e-12)


def test_a_large_rank_is_the_full_one() -> None:
    for k in (min(P, Q), 50):
        found = MultitaskRegressor(alpha=2.0, rank=k).fit(X, Y)
        close(found.coef_, Ridge(2.0).fit(X, Y).coef_)
        assert found.rank_ == min(P, Q)


@pytest.mark.ordinary
@pytest.mark.parametrize("parameters", [{"rank": "cv"}, {"rank": "cv", "alpha": 30.0}, {"rank": 2}],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize("solver", ["moments", "svd"])
@intercept
def test_the_rank_is_chosen_by_held_out_r2(
    parameters: dict[str, Any], solver: Any, fit_intercept: bool
) -> None:
    alphas = [1.0, 3e3]
    common = {"solver": solver, "fit_intercept": fit_intercept}
    found = MultitaskRegressor(alphas=alphas, cv=THREE, **parameters, **common).fit(X, Y)
    grid = [parameters["alpha"]] if "alpha" in parameters else alphas
    ranks = range(1, min(P, Q) + 1) if parameters["rank"] == "cv" else [2]
    scores = np.array(
        [
            [
                np.mean(
                    [
                        MultitaskRegressor(alpha=a, rank=k, **common)
                        .fit(X[train], Y[train])
                        .score_tasks(X[test], Y[test])
                        for train, test in THREE
                    ],
                    axis=0,
                )
                for k in ranks
            ]
            for a in grid
        ]
    )
    i, j = np.unravel_index(scores.mean(2).argmax(), scores.shape[:2])
    assert (found.alpha_, found.rank_) == (grid[i], ranks[j])
    close(found.cv_scores_, scores[:, j], 1e-11)
    if parameters["rank"] == "cv":
        close(found.cv_rank_scores_, scores.mean(2), 1e-11)


def test_the_true_rank_is_found() -> None:
    r = np.random.default_rng(0)
    A = r.normal(size=(400, 20))
    B = A @ r.normal(size=(20, 3)) @ r.normal(size=(3, 15)) + 3 * r.normal(size=(400, 15))
    assert MultitaskRegressor(rank="cv").fit(A, B).rank_ == 3
    exact = A @ r.normal(size=(20, 3)) @ r.normal(size=(3, 15))
    assert MultitaskRegressor(rank="cv", alpha=1e-6).fit(A, exact).rank_ == 3


# -------------------------------------------------------------------------- shape, degenerate
def test_wide_data_never_form_a_matrix_of_features() -> None:
    A, B = rng.normal(size=(40, 3000)), rng.normal(size=(40, 3))
    B[:, 0] += A[:, :50].sum(1)
    found = MultitaskRegressor().fit(A, B)
    assert found.moments_[0].form == "root"
    for j in range(3):
        expected = Ridge(found.alpha_[j]).fit(A, B[:, j])
        close(found.coef_[j], expected.coef_)
    gaps = B.copy()
    gaps[::7, 1] = np.nan
    assert MultitaskRegressor().fit(A, gaps).coef_.shape == (3, 3000)
    assert found._solution.weights.shape == (3000, 3)


def test_ill_conditioned_features_are_solved_by_the_root() -> None:
    A = X.copy()
    A[:, 1] = A[:, 0] + 1e-6 * rng.normal(size=N)
    found = MultitaskRegressor(alpha=0.0).fit(A, Y)
    assert found.moments_.form == "root"
    expected = np.linalg.lstsq(A - A.mean(0), Y - Y.mean(0), rcond=None)[0]
    close(found.coef_.T, expected, 1e-7)
    assert MultitaskRegressor(alpha=1.0).fit(A, Y).moments_.form == "scatter"


@solver
def test_no_penalty_on_dependent_columns_gives_the_least_norm_with_a_warning(solver: Any) -> None:
    A = np.c_[X, 3 * X[:, :2], np.full(N, 7.0)]
    with pytest.warns(UserWarning, match=r"rank 8 of 11\) and alpha is 0.*least norm") as caught:
        found = MultitaskRegressor(alpha=0.0, solver=solver).fit(A, Y)
    assert len(caught) == 1
    expected = np.linalg.lstsq(A - A.mean(0), Y - Y.mean(0), rcond=1e-10)[0]
    close(found.coef_.T, expected, 1e-7)


@solver
@pytest.mark.parametrize("alpha", [1.0, "cv"])
def test_constant_and_duplicate_columns_do_not_matter_with_a_penalty(
    solver: Any, alpha: Any
) -> None:
    A = np.c_[X, X[:, :2], np.full(N, 0.1)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = MultitaskRegressor(alpha=alpha, solver=solver).fit(A, np.c_[Y, np.full(N, 0.1)])
    assert not found.coef_[:, -1].any()
    close(found.coef_[:, :2], found.coef_[:, P : P + 2], 1e-8)
    close(found.predict(A)[:, -1], np.full(N, 0.1))
    assert found.score_tasks(A, np.c_[Y, np.full(N, 0.1)])[-1] == 1


def test_one_dimensional_y_gives_one_dimensional_results() -> None:
    found = MultitaskRegressor().fit(X, Y[:, 0])
    assert found.predict(X).shape == (N,)
    assert found.coef_.shape == (P,)
    assert isinstance(found.intercept_, float)
    assert isinstance(found.alpha_, float)
    column = MultitaskRegressor().fit(X, Y[:, :1])
    assert column.coef_.shape == (1, P)
    assert column.alpha_.shape == (1,)
    assert column.predict(X).shape == (N, 1)


def test_task_correlations_are_those_of_the_coefficients() -> None:
    found = MultitaskRegressor().fit(X, Y)
    close(found.task_correlation_, np.corrcoef(found.coef_), 1e-12)
    found = MultitaskRegressor().fit(X, np.c_[Y, np.ones(N)])
    assert np.isnan(found.task_correlation_[-1]).all()


def test_binary_targets_have_a_decision_function() -> None:
    labels = (Y.mean(0) < Y).astype(np.float32)
    found = MultitaskRegressor().fit(X, labels)
    np.testing.assert_array_equal(found.decision_function(X), found.predict(X))
    assert MultitaskRegressor().fit(X, np.c_[Y, labels[:, :1]]).decision_function(X).any()
    assert not hasattr(MultitaskRegressor().fit(X, Y), "decision_function")
    assert not hasattr(MultitaskRegressor(), "decision_function")


def test_float32_stays_and_features_far_from_zero_lose_no_digits() -> None:
    A, B = (X + 300).astype(np.float32), Y.astype(np.float32)
    found = MultitaskRegressor(alpha=1.0).fit(A, B)
    assert found.predict(A).dtype == np.float32
    assert found.coef_.dtype == np.float64
    close(found.predict(A), Ridge(1.0).fit(X, Y).predict(X), 1e-4)


def test_a_refit_forgets_what_the_last_one_chose() -> None:
    found = MultitaskRegressor(rank="cv").fit([X[:, :3], X[:, 3:]], Y)
    found.set_params(rank=None, alpha=1.0).fit(X, Y)
    for name in ("cv_scores_", "cv_rank_scores_", "view_columns_"):
        assert not hasattr(found, name)


# --------------------------------------------------------------------------- array libraries
@pytest.mark.slow
@pytest.mark.parametrize("name", PLACES[1:])
@pytest.mark.parametrize("dtype", DTYPES)
def test_views_side_by_side_stay_where_they_are(name: str, dtype: str) -> None:
    place = Place(name)
    views = [place(X[:, :3], dtype), place(X[:, 3:], dtype)]
    expected = MultitaskRegressor(alpha=1.0).fit(X, GAPS)
    found = MultitaskRegressor(alpha=1.0).fit(views, place(GAPS, dtype))
    for rows in (views, place(X, dtype)):
        prediction = found.predict(rows)
        assert place.owns(prediction)
        assert dtype in str(prediction.dtype)
        close(to_numpy(prediction), expected.predict(X), DTYPES[dtype])


# ------------------------------------------------------------------------------- bad input
def test_a_rank_without_a_closed_form_raises() -> None:
    for rank in (2, "cv"):
        for call in ("fit", "partial_fit"):
            with pytest.raises(ValueError, match=r"different rows \(NaN in y\) has no closed form"):
                getattr(MultitaskRegressor(rank=rank), call)(X, GAPS)
        with pytest.raises(ValueError, match=r"alpha for each task has no closed form"):
            MultitaskRegressor(rank=rank, alpha=np.ones(Q)).fit(X, Y)
    seen = MultitaskRegressor(rank=2).partial_fit(X, Y)
    before = seen.coef_
    late = Y.copy()
    late[:, 1] = np.nan  # alike within the batch, but not with the rows before
    with pytest.raises(ValueError, match="no closed form"):
        seen.partial_fit(X, late)
    assert seen.coef_ is before
    close(seen.partial_fit(X, Y).n_samples_, 2 * N)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": np.nan}, "alpha"),
        ({"alpha": "auto"}, "alpha"),
        ({"alpha": [1.0, -1.0, 1, 1, 1, 1]}, "alpha must be finite and not negative"),
        ({"alpha": [1.0, 2.0]}, "alpha has 2 values for 6 tasks"),
        ({"alpha": np.ones((Q, 1))}, "one number a task"),
        ({"alpha": True}, "alpha"),
        ({"alphas": []}, "alphas"),
        ({"alphas": [1.0, -2.0]}, "alphas must be finite and not negative"),
        ({"alphas": [1.0, np.inf]}, "alphas must be finite"),
        ({"alphas": "grid"}, "alphas"),
        ({"rank": 0}, "rank"),
        ({"rank": "full"}, "rank"),
        ({"cv": 1}, "cv"),
        ({"solver": "cholesky"}, "solver"),
        ({"fit_intercept": 2}, "fit_intercept"),
    ],
    ids=str,
)
def test_parameters_out_of_range_raise(parameters: dict[str, Any], message: str) -> None:
    for call in (
        lambda m: m.fit(X, Y),
        lambda m: m.partial_fit(X, Y),
        lambda m: m.fit_moments(Moments.folds(x=X, y=Y)),
    ):
        with pytest.raises(ValueError, match=message):
            call(MultitaskRegressor(**parameters))


def test_values_that_are_not_finite_are_located() -> None:
    bad = X.copy()
    bad[3, 1] = np.nan
    infinite = GAPS.copy()
    infinite[5, 2] = np.inf
    for alpha in ("cv", 1.0):
        for y in (Y, GAPS):
            with pytest.raises(
                ValueError, match=r"x has 1 NaN value, the first at row 3, column 1"
            ):
                MultitaskRegressor(alpha=alpha).fit(bad, y)
        with pytest.raises(
            ValueError, match=r"y has 1 infinite value, the first at row 5, column 2"
        ):
            MultitaskRegressor(alpha=alpha).fit(X, infinite)
        complete = Y.copy()
        complete[5, 2] = np.inf
        with pytest.raises(
            ValueError, match=r"y has 1 infinite value, the first at row 5, column 2"
        ):
            MultitaskRegressor(alpha=alpha).fit(X, complete)
    with pytest.raises(ValueError, match="X has 1 NaN"):
        MultitaskRegressor(alpha=1.0).fit(X, Y).predict(bad)


def test_a_task_that_is_hardly_observed_raises_with_its_column() -> None:
    for count in (0, 1):
        y = Y.copy()
        y[count:, 2] = np.nan
        message = rf"task 2 \(column 2 of y\) is observed in n_samples={count} rows"
        for alpha in ("cv", 1.0):
            with pytest.raises(ValueError, match=message):
                MultitaskRegressor(alpha=alpha).fit(X, y)
    y = Y.copy()
    y[np.arange(N) % 5 != 0, 2] = np.nan  # in one fold only
    with pytest.raises(ValueError, match="at least two folds"):
        MultitaskRegressor().fit(X, y)
    MultitaskRegressor(alpha=1.0).fit(X, y)


def test_a_task_with_one_row_a_fold_is_chosen_by_all_its_held_out_rows() -> None:
    y = Y.copy()
    y[4:, 2] = np.nan
    found = MultitaskRegressor().fit(X, y)
    assert found.alpha_[2] == ALPHAS[np.argmax(found.cv_scores_[:, 2])]
    assert np.ptp(found.cv_scores_[:, 2]) > 0
    assert np.isfinite(found.coef_).all()
    with pytest.warns(UserWarning, match="R2 is NaN"):
        assert np.isnan(found.score(X[:1], Y[:1]))
    scores = found.score_tasks(X[4:], y[4:])
    assert np.isnan(scores).tolist() == [False, False, True, False, False, False]
    assert found.score(X[4:], y[4:]) == pytest.approx(np.nanmean(scores))


def test_views_that_are_not_those_of_the_fit_raise() -> None:
    a, b = X[:, :3], X[:, 3:]
    found = MultitaskRegressor(alpha=1.0).fit({"image": a, "text": b}, Y)
    for views, message in (
        ({"image": a}, r"views of X are image, but .* image, text"),
        ([b, a], r"views of X have 5, 3 features, but .* 3, 5"),
        ([a, b, a], r"have 3, 5, 3 features"),
        (X[:, :5], r"X has 5 features, but MultitaskRegressor is expecting 8"),
        ([a, b[1:]], r"\(153, 3\).*\(152, 5\)"),
    ):
        with pytest.raises(ValueError, match=message):
            found.predict(views)
    with pytest.raises(ValueError, match="X has 6 features, but fit saw 8"):
        MultitaskRegressor(alpha=1.0).fit(X, Y).predict([a, a])
    for name in ("y", "form", "sample_weight", 3):
        with pytest.raises(ValueError, match=f"view of X is named {name!r}"):
            MultitaskRegressor(alpha=1.0).fit({name: a, "b": b}, Y)
    with pytest.raises(ValueError, match="without a view"):
        MultitaskRegressor().fit({}, Y)


def test_moments_that_do_not_fit_raise() -> None:
    with pytest.raises(KeyError, match="no block 'y'"):
        MultitaskRegressor(alpha=1.0).fit_moments(Moments.from_data(x=X))
    with pytest.raises(KeyError, match="no block 'x'"):
        MultitaskRegressor(alpha=1.0).fit_moments(Moments.from_data(y=Y))
    with pytest.raises(ValueError, match="cannot be split"):
        MultitaskRegressor().fit_moments(Moments.from_data(x=X, y=Y))
    found = MultitaskRegressor(alpha=1.0).fit(X, Y)
    with pytest.raises(ValueError, match="moments of x are of 7 features"):
        found.score_moments(Moments.from_data(x=X[:, 1:], y=Y))
    with pytest.raises(ValueError, match="not dealt to 5 folds"):
        found.set_params(alpha="cv").partial_fit(X, Y)


def test_moments_of_incomplete_features_are_taken_as_one_block() -> None:
    holes = X.copy()
    holes[rng.random(X.shape) < 0.05] = np.nan
    m = Moments.from_data(x=holes, y=Y, missing="em")
    found = MultitaskRegressor(alpha=2.0).fit_moments(m)
    S = m.scatter("x") + 2.0 * np.eye(P)
    close(found.coef_.T, np.linalg.solve(S, m.scatter("x", "y")), 1e-8)
    views = Moments.from_data(a=holes[:, :3], b=holes[:, 3:], y=Y, missing="em")
    close(MultitaskRegressor(alpha=2.0).fit_moments(views).coef_, found.coef_, 1e-8)


# ------------------------------------------------------------------------- scikit-learn


def test_one_row_left_out_at_a_time_chooses_by_press() -> None:
    """As scikit-learn's RidgeCV does without folds: leave-one-out errors of all rows together."""
    from sklearn.linear_model import RidgeCV

    rng = np.random.default_rng(0)
    X = rng.normal(size=(30, 8))
    y = X[:, 0] + 2 * rng.normal(size=30)
    alphas = np.geomspace(1e-2, 1e4, 13)
    found = MultitaskRegressor(alpha="cv", alphas=alphas, cv=30).fit(X, y)
    assert found.alpha_ == pytest.approx(RidgeCV(alphas=alphas).fit(X, y).alpha_)
    assert found.alpha_ > alphas[0]


@pytest.mark.parametrize(
    "how",
    [{}, {"alpha": 2.0}, {"bands": [0, 0, 1, 1, 1], "random_state": 0}, {"fit_intercept": False}],
)
def test_very_many_targets_need_no_products(how: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those among targets, which no regression needs, would fill the memory."""
    rng = np.random.default_rng(0)
    X, w = rng.normal(size=(90, 5)), rng.integers(1, 3, 90).astype(float)
    Y = X @ rng.normal(size=(5, 17)) + rng.normal(size=(90, 17)) * rng.uniform(0.1, 3, 17)
    together = MultitaskRegressor(cv=3, **how).fit(X, Y, sample_weight=w)
    monkeypatch.setattr("cmstats.moments.tasks.MOST", 5)
    alone = MultitaskRegressor(cv=3, **how).fit(X, Y, sample_weight=w)
    batches = MultitaskRegressor(cv=3, **how)
    for at in (slice(0, 40), slice(40, 90)):
        batches.partial_fit(X[at], Y[at], sample_weight=w[at])
    stream = MultitaskRegressor(cv=3, **how).fit([(X, Y)])
    for model in (alone, batches, stream):
        assert {m.diagonal for m in np.atleast_1d(model.moments_)} == {"y"}
    for model in (alone, batches):
        for name in ("coef_", "intercept_", "alpha_"):
            np.testing.assert_allclose(
                getattr(model, name), getattr(together, name), rtol=1e-9, atol=1e-12
            )
        np.testing.assert_allclose(model.score_tasks(X, Y), together.score_tasks(X, Y), rtol=1e-9)
    ranked = MultitaskRegressor(rank="cv", cv=3).fit(X, Y)
    assert {m.diagonal for m in ranked.moments_} == {None}
    assert alone.calibrate(X, Y).predict_region(X[:2]).contains(Y[:2]).shape == (2,)
    search = MomentsSearchCV(MultitaskRegressor(), {"alpha": [1.0, 10.0]}, cv=3).fit(X, Y)
    best, fold = MultitaskRegressor(**search.best_params_), np.arange(90) % 3
    each = [best.fit(X[fold != k], Y[fold != k]).predict(X[fold == k]) for k in range(3)]
    by_hand = [r2_score(Y[fold == k], predicted) for k, predicted in enumerate(each)]
    assert search.best_score_ == pytest.approx(np.mean(by_hand))


def test_gaps_of_very_many_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Targets that are observed in different rows are so without products, too."""
    rng = np.random.default_rng(1)
    X, Y = rng.normal(size=(80, 3)), rng.normal(size=(80, 9))
    Y[5:20, 2:4], Y[40:, 7] = np.nan, np.nan
    expected = MultitaskRegressor(cv=4).fit(X, Y)
    monkeypatch.setattr("cmstats.moments.tasks.MOST", 5)
    found = MultitaskRegressor(cv=4).partial_fit(X[:30], Y[:30]).partial_fit(X[30:], Y[30:])
    assert all(m.diagonal == "y" for each in found.moments_.values() for m in each)
    np.testing.assert_allclose(found.coef_, expected.coef_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.score_tasks(X, Y), expected.score_tasks(X, Y), rtol=1e-9)


@pytest.mark.dask
def test_a_shared_rank_of_very_many_targets_holds_on_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have products among them, in every chunk."""
    da = pytest.importorskip("dask.array")
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(60, 5)), rng.normal(size=(60, 17))
    model = MultitaskRegressor(alpha=1.0, rank=2)
    expected = clone(model).fit(X, Y)
    monkeypatch.setattr("cmstats.moments.tasks.MOST", 5)
    dask = [da.from_array(a, chunks=(20, -1)) for a in (X, Y)]
    np.testing.assert_allclose(clone(model).fit(*dask).coef_, expected.coef_, atol=1e-12)
    gaps = da.from_array(np.where(rng.random(Y.shape) < 0.1, np.nan, Y), chunks=(20, -1))
    with pytest.raises(ValueError, match="different rows"):
        clone(model).fit(dask[0], gaps)
