"""Half precision, whole numbers and truth values are rows; results are single or double."""

from __future__ import annotations

import numpy as np
import pytest

from .places import places
from .registry import Model, every
from .rows import Rows, assert_same
from .test_places import OF_MODEL, drawn


def whole(rows: Rows, dtype: str) -> Rows:
    """Rows of that type, as far from each other as rows were."""
    if dtype == "bool":
        return rows.map(lambda a: a > np.median(a, axis=0))
    return rows.map(lambda a: np.round(4 * (a - a.min())).astype(dtype))


@every(variants=False, door=True)
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_whole_numbers_are_doubles(model: Model, dtype: str) -> None:
    rows = whole(model.rows(), dtype)
    doubles = rows.map(lambda a: a.astype(float))
    found = model.everything(model.fit(rows), rows)
    model.compare(found, model.everything(model.fit(doubles), doubles), 1e-9)


@every(lambda m: m.moments, variants=False, door=True)
@pytest.mark.ordinary
def test_whole_numbers_of_other_libraries_are_doubles(model: Model) -> None:
    for dtype in ("int64", "bool"):
        rows = whole(model.rows(), dtype)
        expected = model.everything(model.fit(rows), rows)
        for place in places():
            there = rows.map(lambda a, place=place, dtype=dtype: place(a, dtype))
            found = model.everything(model.fit(there), there)
            model.compare(found, expected, 1e-9, drawn(model, found))


@every(variants=False, door=True)
def test_half_precision_gives_single(model: Model) -> None:
    rows = model.rows().map(lambda a: (a / 8).astype(np.float16))
    doubles = rows.map(lambda a: a.astype(float))
    est, some = model.fit(rows), rows.take(slice(0, 9))
    found = model.calls(est, some)
    for name, values in found.items():
        for a in values:
            if isinstance(a, np.ndarray) and a.dtype.kind == "f" and not name.startswith(OF_MODEL):
                assert a.dtype == np.float32, name
    expected = model.calls(model.fit(doubles), doubles.take(slice(0, 9)))
    model.compare(found, expected, 2 * model.atol32, model.unsteady)


@every(variants=False, door=True)
def test_the_precision_of_results_is_that_of_the_rows_given_then(model: Model) -> None:
    """Not that of the rows of fit."""
    rows = model.rows()
    some = rows.take(slice(0, 9))
    est = model.fit(rows.map(lambda a: a.astype(np.float32)))
    for name, values in model.calls(est, some).items():
        for a in values:
            if isinstance(a, np.ndarray) and a.dtype.kind == "f":
                assert a.dtype == np.float64, name


def predicts_in_any_unit(model: Model) -> bool:
    """Whether the unit of y changes nothing but the unit of what is predicted."""
    whole = model.moments and not (model.mapped or model.many)
    # Canonical PLS takes scores of y for scores of x, whatever their units.
    symmetric = "joint" in model.name or "canonical" in model.name
    return whole and model.has("predict") and not symmetric


@every(predicts_in_any_unit, variants=None)
@pytest.mark.parametrize("power", [200, -200])
def test_predictions_that_single_precision_does_not_hold_are_in_double(
    model: Model, power: int
) -> None:
    rows = model.rows()
    near = rows.but("x", rows.x.astype(np.float32))
    far = near.but("y", rows.y * 2.0**power)
    found, expected = (model.fit(r).predict(r.x) for r in (far, near))
    assert found.dtype == np.float64
    assert_same({"": [found * 2.0**-power]}, {"": [expected]}, model.atol32)
