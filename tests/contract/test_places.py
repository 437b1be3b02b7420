"""Library and device in = library and device out, and the numbers of NumPy."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from cmstats.arrays import is_array, to_numpy

from .places import Place, another, places
from .registry import Model, every, fitted, known, weights_of
from .rows import Rows, fitted_numbers

pytestmark = pytest.mark.ordinary

ANYWHERE = ("cv_scores_", "cv_gamma_scores_", "cv_rank_scores_", "class_prior_")
"""Attributes that are NumPy's wherever the rows are."""

OF_MODEL = ("mutual_information", "score_tasks", "score_by_band", "score_moments_by_band")
"""Results in double precision whatever the rows are in."""


def assert_there(found: dict[str, Any], place: Place, dtype: str) -> None:
    for name, values in found.items():
        for a in values:
            if not is_array(a) or name in ANYWHERE or "float" not in str(a.dtype):
                continue
            assert place.owns(a), f"{name} is a {type(a)}"
            if not name.endswith("_") and not name.startswith(OF_MODEL):
                assert dtype in str(a.dtype), f"{name} is {a.dtype}"


def drawn(model: Model, found: dict[str, Any]) -> list[str]:
    """Samples that go by the signs of the array library."""
    return [name for name in found if name.startswith(("sample", "condition sample"))
            and model.signless]  # fmt: skip


@every(lambda m: not (m.missing and m.folds is not None))
def test_results_stay_where_the_rows_are(model: Model, at: tuple[str, str]) -> None:
    place, dtype = Place(at[0]), at[1]
    rows = model.rows()
    weighted = model.weights and len(model.name) % 2 == 0
    w = place(weights_of(len(rows))) if weighted else None
    there = rows.map(lambda a: place(a, dtype))
    found = model.everything(model.fit(there, w), there)
    assert_there(found, place, dtype)
    single = dtype == "float32"
    unsteady = (*(model.unsteady if single else ()), *drawn(model, found))
    model.compare(
        found,
        known(model, weighted),
        model.atol32 if single else 1e-9,
        unsteady,
    )


@every(lambda m: m.partial, variants=False)
def test_partial_fit_stays_where_the_rows_are(model: Model) -> None:
    rows, cuts = model.rows(), ((0, 40), (40, 41), (41, 90))

    def fit(rows: Rows) -> Any:
        est = model.make()
        for a, b in cuts:
            model.fit(rows.take(slice(a, b)), None, est, "partial_fit")
        return model.everything(est, rows)

    expected = fit(rows)
    for place in places():
        found = fit(rows.map(place))
        assert_there(found, place, "float64")
        model.compare(found, expected, 1e-9, drawn(model, found))


@every(lambda m: m.weights, variants=False, door=True)
def test_weights_may_be_numpys(model: Model) -> None:
    rows = model.rows()
    expected = fitted_numbers(fitted(model, True))
    for place in places():
        found = fitted_numbers(model.fit(rows.map(place), weights_of(len(rows))))
        model.compare(found, expected, 1e-9)


def mixtures(model: Model) -> Any:
    """Rows of one place, rows of another, and rows with one view in each."""
    rows = model.rows()
    first = next(iter(rows.views))
    for place in places(numpy=True):
        here, there = rows.map(place), rows.map(another(place))
        yield here, there, here.but(first, there.views[first])


def refuses(call: Any) -> None:
    with pytest.raises(TypeError, match="one array library and on one device"):
        call()


@every(lambda m: len(m.rows(5).views) > 1, variants=False, door=True)
def test_fit_takes_rows_of_one_place(model: Model) -> None:
    for _, _, mixed in mixtures(model):
        refuses(lambda mixed=mixed: model.fit(mixed))


@every(lambda m: len(m.rows(5).views) > 1, variants=False, door=True)
def test_calls_take_rows_of_one_place(model: Model) -> None:
    for here, _, mixed in mixtures(model):
        est = model.fit(here)
        refuses(lambda est=est, mixed=mixed: model.calls(est, mixed))


@every(variants=False, door=True)
def test_calls_take_rows_from_the_place_of_fit(model: Model) -> None:
    for here, there, _ in mixtures(model):
        est = model.fit(here)
        refuses(lambda est=est, there=there: model.calls(est, there))


@every(lambda m: m.score, variants=False, door=True)
def test_score_takes_rows_from_the_place_of_fit(model: Model) -> None:
    for here, there, _ in mixtures(model):
        est = model.fit(here)
        refuses(lambda est=est, there=there: model.score_of(est, there))


@every(lambda m: m.partial, variants=False, door=True)
def test_partial_fit_takes_rows_from_the_place_of_fit(model: Model) -> None:
    for here, there, mixed in mixtures(model):
        est = model.fit(here)
        refuses(lambda est=est, there=there: model.fit(there, None, est, "partial_fit"))
        if len(here.views) > 1:
            refuses(lambda mixed=mixed: model.fit(mixed, None, model.make(), "partial_fit"))


@pytest.mark.torch
@every(variants=False, door=True)
def test_tensors_with_gradients_are_rows_like_others(model: Model) -> None:
    place, rows = Place("torch"), model.rows()
    there = rows.map(lambda a: place(a).requires_grad_())
    est = model.fit(there)
    found = model.everything(est, there)
    model.compare(found, known(model), 1e-9, drawn(model, found))
    held = copy.deepcopy(est)  # a graph cannot be copied
    assert not [a for a in vars(held).values() if getattr(a, "requires_grad", False)]


@pytest.mark.torch
@every(variants=False, door=True)
def test_tensors_of_half_precision_give_single(model: Model) -> None:
    place = Place("torch")
    for half in (place.xp.float16, place.xp.bfloat16):
        rows = model.rows().map(lambda a, half=half: place(a / 8).to(half))
        wide = rows.map(lambda a: to_numpy(a.to(place.xp.float64)))
        est, expected = model.fit(rows), model.fit(wide)
        found = model.calls(est, rows.take(slice(0, 9)))
        assert_there(found, place, "float32")
        expected = model.calls(expected, wide.take(slice(0, 9)))
        model.compare(found, expected, 2 * model.atol32, (*model.unsteady, *drawn(model, found)))


@pytest.mark.filterwarnings("ignore::UserWarning")
@every(lambda m: m.moments and not m.mapped, variants=False)
def test_degenerate_rows_stay_where_they_are(model: Model) -> None:
    rows = model.rows()
    first, v = next(iter(rows.views.items()))
    bads = [np.c_[v, np.ones(len(v)), v[:, :1]]]
    if model.folds is None:  # nothing can be chosen by rows that do not vary
        bads.append(np.full_like(v, 2.0))
    for bad in bads:
        here = rows.but(first, bad)
        some = ("transform", "predict", "embed")
        for solver in ("moments", "svd") if model.solves_both_ways else ("",):
            make = model.make().set_params(**({"solver": solver} if solver else {}))
            expected = model.calls(model.fit(here, None, clone(make)), here, some)
            for place in places():
                there = here.map(place)
                est = model.fit(there, None, clone(make))
                assert_there(fitted_numbers(est), place, "float64")
                found = model.calls(est, there, some)
                assert_there(found, place, "float64")
                model.compare(found, expected, 1e-6)
