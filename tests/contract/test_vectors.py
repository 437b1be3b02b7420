"""A vector y is one column, and what is predicted of it is a vector."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmstats.arrays import to_numpy

from .places import places
from .registry import Model, every
from .rows import Rows, assert_same

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of fewer components


def column(rows: Rows) -> Rows:
    return rows.but("y", rows.y[:, :1])


def flat(found: dict[str, Any]) -> dict[str, Any]:
    """Vectors, up to the sign of all of one."""
    return {name: [np.abs(to_numpy(a)).reshape(-1) for a in v] for name, v in found.items()}


def new(model: Model) -> Any:
    """An unfitted model with parameters that one column of y allows."""
    return model.make() if model.one is None else model.one()


@every(lambda m: "y" in m.rows(5).views and not m.missing, variants=False, door=True)
def test_a_vector_is_one_column(model: Model) -> None:
    wide = column(model.rows())
    vector = wide.but("y", wide.y[:, 0])
    expected = model.fit(wide, None, new(model))
    for rows in (vector, wide.but("y", pd.Series(vector.y, name="z"))):
        est = model.fit(rows, None, new(model))
        found, columns = model.calls(est, vector), model.calls(expected, wide)
        assert_same(flat(found), flat(columns), model.atol)
        if hasattr(est, "predict") and not hasattr(est, "classes_"):
            assert est.predict(wide.x).shape == (len(wide),)
            assert expected.predict(wide.x).shape == (len(wide), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(wide.but("y", vector.y.tolist()), None, new(model))


@every(lambda m: "y" in m.rows(5).views and not m.missing, variants=False, door=True)
@pytest.mark.ordinary
def test_a_vector_of_another_library_is_one_column(model: Model) -> None:
    wide = column(model.rows())
    vector = wide.but("y", wide.y[:, 0])
    rest = {"without": ("score",)}  # the ranks of equal cosines
    expected = flat(model.calls(model.fit(vector, None, new(model)), vector, **rest))
    for place in places():
        there = vector.map(place)
        found = flat(model.calls(model.fit(there, None, new(model)), there, **rest))
        assert_same(found, expected, max(model.atol, 1e-9))


@every(lambda m: "y" in m.rows(5).views and m.partial, variants=False, door=True)
def test_vectors_come_in_batches(model: Model) -> None:
    wide = column(model.rows())
    vector = wide.but("y", wide.y[:, 0])
    est = new(model)
    for at in (slice(0, 40), slice(40, None)):
        part = Rows({k: v[at] for k, v in vector.views.items()})
        model.fit(part, None, est, "partial_fit")
    if not model.mapped:
        expected = model.calls(model.fit(vector, None, new(model)), vector)
        model.compare(model.calls(est, vector), expected)


@every(lambda m: "y" in m.rows(5).views and not m.missing, variants=False, door=True)
def test_the_name_of_a_series_is_remembered(model: Model) -> None:
    wide = column(model.rows())
    rows = wide.but("y", pd.Series(wide.y[:, 0], name="z"))
    est = model.fit(rows, None, new(model))
    if hasattr(est, "y_feature_names_in_"):
        assert list(est.y_feature_names_in_) == ["z"]
        with pytest.raises(ValueError, match="feature names of y"):
            model.calls(est, rows.but("y", rows.y.rename("other")))
