"""partial_fit = fit in any batches; a stream of batches = fit."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from sklearn.exceptions import NotFittedError

from cmstats import MultitaskRegressor

from .registry import Model, every, known, weights_of
from .rows import Rows, fitted_numbers

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of the first few rows


def parts(rows: Rows, cuts: tuple[int, ...]) -> Iterator[tuple[slice, Rows]]:
    for a, b in itertools.pairwise(cuts):
        yield slice(a, b), rows.take(slice(a, b))


def in_batches(model: Model, cuts: tuple[int, ...]) -> None:
    rows = model.rows()
    w = weights_of(len(rows)) + 1 if model.weights else None
    est = model.make()
    for at, part in parts(rows, cuts):
        model.fit(part, None if w is None else w[at], est, "partial_fit")
    found, expected = (model.everything(e, rows) for e in (est, model.fit(rows, w)))
    model.compare(found, expected)


@every(lambda m: m.partial and not m.mapped)
def test_partial_fit_in_two_batches_is_fit(model: Model) -> None:
    in_batches(model, (0, 45, 90))


@every(lambda m: m.partial and not m.mapped)
def test_partial_fit_in_uneven_batches_is_fit(model: Model) -> None:
    in_batches(model, (0, 1, 2, 40, 90))


def row_by_row(model: Model) -> None:
    rows, est = model.rows(25), model.make()
    for _, part in parts(rows, tuple(range(26))):
        model.fit(part, None, est, "partial_fit")
    found, expected = (model.everything(e, rows) for e in (est, model.fit(rows)))
    model.compare(found, expected, 100 * model.atol)


@every(lambda m: m.partial and not m.mapped and not m.missing and m.folds is None, variants=None)
def test_partial_fit_row_by_row_is_fit(model: Model) -> None:
    row_by_row(model)


@pytest.mark.slow
@every(lambda m: m.partial and not m.mapped and not m.missing and m.folds is not None)
def test_partial_fit_row_by_row_deals_rows_to_the_folds_of_fit(model: Model) -> None:
    row_by_row(model)


@every(lambda m: m.partial and m.mapped)
def test_maps_stay_those_of_the_first_batch(model: Model) -> None:
    rows = model.rows()

    def by(*cuts: int) -> Any:
        est = model.make()
        for _, part in parts(rows, (0, 50, *cuts, len(rows))):
            model.fit(part, None, est, "partial_fit")
        return model.everything(est, rows)

    model.compare(by(51, 70), by())


@every(lambda m: m.partial and not m.mapped, variants=None)
def test_partial_fit_goes_on_from_fit(model: Model) -> None:
    rows = model.rows()
    est = model.fit(rows.take(slice(0, 50)))
    model.fit(rows.take(slice(50, None)), None, est, "partial_fit")
    model.compare(model.everything(est, rows), known(model))


@every(lambda m: m.partial and m.moments and not m.mapped, variants=None)
def test_partial_fit_goes_on_from_fit_moments(model: Model) -> None:
    rows = model.rows()
    first = rows.take(slice(0, 50))
    est = model.make().fit_moments(model.moments_of(None, first, folds=model.folds))
    model.fit(rows.take(slice(50, None)), None, est, "partial_fit")
    model.compare(model.everything(est, rows), known(model))


@every(lambda m: m.partial and not m.missing and not m.mapped, variants=None)
def test_one_row_is_not_yet_a_model(model: Model) -> None:
    rows = model.rows()
    est = model.fit(rows.take(slice(0, 1)), None, model.make(), "partial_fit")
    with pytest.raises(NotFittedError):
        model.calls(est, rows)


def from_stream(model: Model, size: int) -> None:
    rows = model.rows()
    cuts = (*range(0, len(rows), size), len(rows))
    batches = [model.batch(part) for _, part in parts(rows, cuts)]
    expected = known(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = model.make().fit(iter(batches))
    model.compare(model.everything(found, rows), expected)
    if not model.many:
        named = model.make().fit(part.views for _, part in parts(rows, cuts))
        model.compare(model.everything(named, rows), expected)


@every(lambda m: m.partial and not m.mapped, door=True)
def test_a_stream_of_batches_is_fit(model: Model) -> None:
    from_stream(model, 13)


@every(lambda m: m.partial and not m.mapped, variants=None, door=True)
def test_a_stream_of_single_rows_is_fit(model: Model) -> None:
    from_stream(model, 1)


@every(lambda m: m.partial and not m.mapped, variants=None)
def test_a_list_of_batches_is_a_stream_also_of_one_batch(model: Model) -> None:
    rows = model.rows()
    expected = known(model)
    for cuts in ((0, 90), (0, 40, 90)):
        batches = [model.batch(part) for _, part in parts(rows, cuts)]
        model.compare(model.everything(model.make().fit(batches), rows), expected)
        named = [part.views for _, part in parts(rows, cuts)]
        model.compare(model.everything(model.make().fit(named), rows), expected)


@every(lambda m: isinstance(m.make(), MultitaskRegressor), variants=None)
@pytest.mark.parametrize("views", [list, dict])
def test_a_list_of_batches_may_have_several_views(model: Model, views: Any) -> None:
    rows = model.rows()
    cut = {"a": rows.x[:, :2], "b": rows.x[:, 2:]}
    X = cut if views is dict else list(cut.values())
    found, expected = model.make().fit([(X, rows.y)]), model.make().fit(X, rows.y)
    model.compare(fitted_numbers(found), fitted_numbers(expected))
    halves = [
        ({k: v[at] for k, v in cut.items()}, rows.y[at]) for at in (slice(40), slice(40, None))
    ]
    model.compare(fitted_numbers(model.make().fit(halves)), fitted_numbers(expected))


@every(lambda m: not m.partial, variants=False)
def test_a_list_of_one_pair_is_refused_in_one_sentence_elsewhere(model: Model) -> None:
    rows = model.rows()
    with pytest.raises((TypeError, ValueError)) as error:
        model.make().fit([tuple(rows.views.values())], **model.labels(rows))
    assert "\n" not in str(error.value)
    assert "inhomogeneous" not in str(error.value)
