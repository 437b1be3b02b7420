"""Weights are frequencies: weight 2 is the row twice, weight 0 is no row at all."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from .registry import Model, every, fitted, weights_of


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


@every(
    lambda m: (
        m.weights
        and not m.seeded
        and not m.missing
        and (m.folds is None or isinstance(m.folds, int))  # a splitter makes other folds of some
    ),
    variants=None,
)
def test_a_row_of_weight_zero_is_no_row(model: Model) -> None:
    rows = model.rows()
    w = np.ones(len(rows))
    w[60:] = 0
    far = rows.map(lambda v: np.where(np.arange(len(v))[:, None] < 60, v, 7 - 2 * v))
    kept = rows.take(slice(0, 60))
    found, expected = model.fit(far, w), model.fit(kept)
    atol = max(model.atol, 1e-8)
    model.compare(model.outcome(found, kept), model.outcome(expected, kept), atol)
    if model.score:
        assert model.score_of(expected, far, w) == pytest.approx(
            model.score_of(expected, kept), abs=atol
        )


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
        if model.has("partial_fit") and model.batches:
            with pytest.raises(ValueError, match=message):
                model.fit(rows, w, model.make(), "partial_fit")
        if model.score:
            with pytest.raises(ValueError, match=message):
                model.score_of(fitted(model), rows, w)
