"""Weights are frequencies: weight 2 is the row twice, weight 0 is no row at all."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from cmstats import CCA, KernelCCA, MultitaskRegressor, MultiviewCCA, OrthogonalMap

from .registry import Model, every, fitted, weights_of
from .rows import Rows, assert_same, fitted_numbers, unlabelled


@every(lambda m: m.weights and not m.seeded and m.folds is None)
def test_weights_are_repeated_rows(model: Model) -> None:
    rows = model.rows()
    w = weights_of(len(rows))
    again = rows.take(np.repeat(np.arange(len(rows)), w.astype(int)))
    repeated = model.fit(again)
    atol = max(model.atol, 1e-9)
    found, expected = (model.outcome(e, rows) for e in (fitted(model, True), repeated))
    model.compare(found, expected, atol)
    if model.score:
        score = model.score_of(repeated, again)
        assert model.score_of(repeated, rows, w) == pytest.approx(score, abs=atol)


@every(lambda m: m.weights and not m.seeded and m.folds is None, variants=None)
def test_weights_of_two_are_rows_twice(model: Model) -> None:
    rows = model.rows()
    found = model.fit(rows, np.full(len(rows), 2.0))
    twice = model.fit(rows.take(np.r_[: len(rows), : len(rows)]))
    found, expected = (model.outcome(e, rows) for e in (found, twice))
    model.compare(found, expected, 1e-9)


@every(lambda m: m.partial, variants=False)
def test_batches_without_weight_or_rows_add_nothing(model: Model) -> None:
    rows = model.rows()
    est = model.make()
    nothing = rows.map(lambda v: v[:9] + np.inf)
    for part in (slice(0, 60), slice(60, None)):
        model.fit(nothing, np.zeros(9), est, "partial_fit")
        model.fit(rows.take(slice(0, 0)), None, est, "partial_fit")
        model.fit(rows.take(part), None, est, "partial_fit")
    whole = model.make()
    for part in (slice(0, 60), slice(60, None)):
        model.fit(rows.take(part), None, whole, "partial_fit")
    model.compare(model.everything(est, rows), model.everything(whole, rows))


@pytest.mark.parametrize(
    "holds",
    [
        1e6,
        pytest.param(np.nan, marks=pytest.mark.slow),
        pytest.param(np.inf, marks=pytest.mark.slow),
    ],
    ids=["far", "nan", "infinite"],
)
@every(lambda m: m.weights and not m.seeded and not m.torch, variants=None)
def test_a_row_of_weight_zero_is_no_row(model: Model, holds: float) -> None:
    rows = model.rows()
    w = np.ones(len(rows))
    w[[*range(17), 40, 41, 77]] = 0
    far = rows.map(lambda v: np.where(w[:, None] > 0, v, holds))
    kept = rows.take(np.flatnonzero(w))
    found, expected = model.fit(far, w), model.fit(kept)
    atol = max(model.atol, 1e-8)
    model.compare(model.outcome(found, kept), model.outcome(expected, kept), atol)
    if model.score:
        assert model.score_of(expected, far, w) == pytest.approx(
            model.score_of(expected, kept), abs=atol
        )
    if model.partial:
        parts = model.make()
        for take in (slice(0, 50), slice(50, None)):
            model.fit(far.take(take), w[take], parts, "partial_fit")
        if not model.mapped:  # maps are those of the first rows
            model.compare(model.outcome(parts, kept), model.outcome(expected, kept), atol)


RANKED = {"shrinkage": "cv", "scoring": "mrr", "cv": 3}
CHOSEN_ON_ROWS = {
    "cca": CCA(2, **RANKED),
    "multiview": MultiviewCCA(2, **RANKED),
    "kernel": KernelCCA(2, approximation="exact", gamma="cv", shrinkage="cv", cv=3),
}


@pytest.mark.parametrize("name", CHOSEN_ON_ROWS)
def test_rows_of_weight_zero_move_no_row_to_another_fold(name: str) -> None:
    rows = unlabelled()
    w = np.random.default_rng(5).integers(0, 3, len(rows))
    fits = []
    for at in (slice(None), w > 0):
        views = (rows.x[at], rows.y[at])
        given = ([*views],) if name == "multiview" else views
        numbers = fitted_numbers(clone(CHOSEN_ON_ROWS[name]).fit(*given, sample_weight=w[at]))
        fits.append({k: v for k, v in numbers.items() if k.startswith(("cv_", "shrinkage_"))})
    assert_same(*fits, 1e-8)


PENALISED = (MultitaskRegressor, OrthogonalMap)
"""Their penalty is compared with a sum over rows."""


@every(lambda m: m.weights and not m.seeded and m.cls not in PENALISED, variants=None)
def test_weights_that_are_no_numbers_of_rows_are_relative(model: Model) -> None:
    rows = model.rows()
    w = np.random.default_rng(4).uniform(0.1, 3, len(rows))
    one, less, least = (
        model.outcome(model.fit(rows, w / w.sum() * total), rows) for total in (1, 1e-3, 1e-200)
    )
    counts = ("n_samples_",)
    atol = max(model.atol, 1e-9)
    model.compare(less, one, atol, without=counts)
    model.compare(least, one, atol, without=counts)
    if not any(s == "auto" for s in str(model.make().get_params())):
        many = model.outcome(model.fit(rows, w * 4.0**20), rows)
        assert all(np.isfinite(np.asarray(a)).all() for v in many.values() for a in v)


@every(lambda m: m.weights and not m.seeded and not m.torch and not m.missing, variants=None)
def test_a_far_group_that_hardly_weighs_costs_no_digits_of_float32(model: Model) -> None:
    rows = model.rows()
    far = rows.map(lambda v: np.r_[np.abs(v) + 1000, v, v])
    far = Rows(far.views, None if rows.labels is None else np.tile(rows.labels, 3))
    w = np.r_[np.full(len(rows), 1e-14), np.ones(2 * len(rows))]
    exact = model.outcome(model.fit(far, w), rows)
    found = model.outcome(model.fit(far.map(lambda v: v.astype(np.float32)), w), rows)
    model.compare(found, exact, model.atol32, without=("condition_", *model.unsteady))


@every(lambda m: m.weights, variants=False)
def test_weights_that_are_not_frequencies_raise_one_sentence(model: Model) -> None:
    rows = model.rows()
    n = len(rows)
    for w, message in (
        (np.ones(n - 1), rf"shape \({n - 1},\)"),
        (-np.ones(n), "negative"),
        (np.zeros(n), "zero everywhere"),
        (np.full(n, np.nan), "NaN"),
        (np.full(n, np.inf), "infinite"),
        (np.ones((n, 1)), "shape"),
        (["a"] * n, "numbers"),
    ):
        est = model.make()
        with pytest.raises(ValueError, match=message) as caught:
            model.fit(rows, w, est)
        assert "\n" not in str(caught.value)
        with pytest.raises(NotFittedError):
            check_is_fitted(est)
        if model.partial and "zero" not in message:
            with pytest.raises(ValueError, match=message):
                model.fit(rows, w, model.make(), "partial_fit")
        if model.score:
            with pytest.raises(ValueError, match=message):
                model.score_of(fitted(model), rows, w)
