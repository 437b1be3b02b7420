"""Degenerate rows give finite answers and one warning that says what happened."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from .registry import Model, every
from .rows import Rows

LINEAR = ("transform", "predict", "fuse", "embed", "similarity", "inverse_transform")
"""Calls that have an answer on any rows."""


def fit(model: Model, rows: Rows) -> tuple[Any, list[str]]:
    """The model, and what it warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        est = model.fit(rows)
    told = [w for w in caught if issubclass(w.category, UserWarning)]
    assert all(w.category is not RuntimeWarning for w in caught)
    return est, [str(w.message) for w in told if w.category is UserWarning]


def assert_finite(found: dict[str, Any]) -> None:
    for name, values in found.items():
        for a in values:
            assert np.isfinite(a).all(), name


def is_linear(model: Model) -> bool:
    return model.moments and not model.mapped and not model.missing


@every(lambda m: is_linear(m) and m.folds is None)
def test_a_constant_column_is_said_once_at_most(model: Model) -> None:
    for name, v in model.rows().views.items():
        rows = model.rows().but(name, np.insert(v, 1, 7.0, axis=1))
        if "aligned" in model.name:  # its views have one width
            rows = model.rows().map(lambda a: np.insert(a, 1, 7.0, axis=1))
        if "multitask-each" in model.name and name == "y":
            continue  # it has a penalty for each task
        if len(model.rows().views) == 3 and "mixed" in model.name and name == "x":
            continue
        est, told = fit(model, rows)
        assert len(told) <= 1
        assert all("\n" not in sentence for sentence in told)
        assert all("constant" in s or "depend" in s or "vary" in s for s in told), told
        assert_finite(model.calls(est, rows, LINEAR))


@every(lambda m: is_linear(m) and m.folds is None)
def test_rows_that_do_not_vary_are_said(model: Model) -> None:
    rows = model.rows().map(lambda a: np.full_like(a, 0.1))
    est, told = fit(model, rows)
    assert len(told) <= 1
    assert_finite(model.calls(est, rows, LINEAR))


@every(lambda m: is_linear(m) and m.folds is None and len(m.rows(5).views) > 1)
def test_one_view_that_does_not_vary_is_said(model: Model) -> None:
    for name, v in model.rows().views.items():
        rows = model.rows().but(name, np.full_like(v, 0.1))
        est, told = fit(model, rows)
        assert len(told) <= 1
        assert_finite(model.calls(est, rows, LINEAR))


@every(lambda m: is_linear(m) and m.folds is None)
def test_more_columns_than_rows_are_said_in_one_sentence(model: Model) -> None:
    rows = model.rows(7)
    est, told = fit(model, rows)
    assert len(told) <= 1
    assert all("set" in s or "svd-full" in model.name for s in told), told
    assert_finite(model.calls(est, model.rows(), LINEAR))


def wide(model: Model) -> Rows:
    rng = np.random.default_rng(0)
    return model.rows(30).map(
        lambda a: np.c_[a @ rng.normal(size=(a.shape[1], 40)), rng.normal(size=(30, 20))]
    )


@every(lambda m: is_linear(m) and m.folds is None and "each" not in m.name)
def test_wide_rows_are_solved_by_the_root(model: Model) -> None:
    rows = wide(model)
    est, _ = fit(model, rows)
    assert_finite(model.calls(est, rows, LINEAR))
    solver = est.get_params().get("solver", "auto")
    if solver == "auto" and hasattr(est, "moments_"):
        assert est.moments_.form == "root"


@every(lambda m: is_linear(m) and m.folds is None and m.partial and not m.many, variants=None)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_partial_fit_of_wide_rows_is_fit(model: Model) -> None:
    rows, est = wide(model), model.make()
    for at in (slice(0, 14), slice(14, None)):
        model.fit(rows.take(at), None, est, "partial_fit")
    found, expected = (
        model.calls(e, rows, ("predict", "inverse_transform")) for e in (est, model.fit(rows))
    )
    model.compare(found, expected, 1e-4)


@every(
    lambda m: is_linear(m) and m.folds is None and "solver" in m.make().get_params(),
    variants=None,
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ill_conditioned_rows_are_those_of_the_svd(model: Model) -> None:
    rows = model.rows()
    rng = np.random.default_rng(0)
    first, v = next(iter(rows.views.items()))
    bad = rows.but(first, np.c_[v, v[:, :1] + 1e-6 * rng.normal(size=(len(v), 1))])
    found = model.fit(bad)
    expected = model.fit(bad, None, model.make().set_params(solver="svd"))
    some = ("predict", "embed", "inverse_transform")
    model.compare(model.calls(found, bad, some), model.calls(expected, bad, some), 1e-5)


@every(lambda m: is_linear(m) and m.folds is None)
def test_a_fit_raises_no_warning_without_a_reason(model: Model) -> None:
    _, told = fit(model, model.rows())
    if "svd-full" not in model.name:
        assert not told


def is_one_fit(model: Model) -> bool:
    """Not a search, whose candidates take fourth moments (they have a sentence of their own)."""
    return model.moments and not model.mapped and not model.heavy


@every(is_one_fit, variants=None)
@pytest.mark.parametrize("power", [480, -480])
def test_products_of_four_values_may_leave_the_range_of_doubles(model: Model, power: int) -> None:
    """The squares of the values stay in it, near its ends."""
    rows = model.rows().map(lambda a: a * 2.0**power)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        est = model.fit(rows)
        model.calls(est, rows.take(slice(0, 9)), only=("score", "predict", "transform"))


@every(is_one_fit, variants=False)
def test_values_whose_squares_are_lost_are_said(model: Model) -> None:
    rows = model.rows().map(lambda a: a * 2.0**-560)
    with pytest.warns(UserWarning, match="so small that their squares are lost"):
        model.fit(rows)
