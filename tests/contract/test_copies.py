"""clone, pickle, copy.deepcopy and skops."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from .registry import Model, every, fitted, known


def assert_equal(model: Model, est: Any, expected: dict[str, list[Any]]) -> None:
    found = model.everything(est, model.rows())
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        for one, other in zip(found[name], values, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


@every(variants=None)
def test_a_pickled_and_a_copied_model_are_the_model(model: Model) -> None:
    est = fitted(model)
    for again in (pickle.loads(pickle.dumps(est)), copy.deepcopy(est)):
        assert_equal(model, again, known(model))


@every(lambda m: m.partial, variants=None)
def test_a_pickled_model_goes_on_with_partial_fit(model: Model) -> None:
    rows = model.rows()
    est = model.fit(rows.take(slice(0, 50)))
    again = pickle.loads(pickle.dumps(est))
    for one in (est, again):
        model.fit(rows.take(slice(50, None)), None, one, "partial_fit")
    assert_equal(model, again, model.everything(est, rows))


@every(variants=None)
def test_a_clone_has_the_parameters_and_no_fit(model: Model) -> None:
    est = fitted(model)
    again = clone(est)
    assert type(again) is type(est)
    assert repr(again) == repr(model.make())
    with pytest.raises(NotFittedError):
        model.calls(again, model.rows())


@every(variants=False)
def test_fit_changes_no_parameter(model: Model) -> None:
    est = model.make()
    before = {k: (v, repr(v)) for k, v in est.get_params(deep=False).items()}
    assert model.fit(model.rows(), None, est) is est
    after = est.get_params(deep=False)
    assert all(after[k] is v and repr(after[k]) == text for k, (v, text) in before.items())


@pytest.mark.ordinary
@every(variants=None)
def test_a_model_goes_through_skops(model: Model) -> None:
    skops = pytest.importorskip("skops.io")
    rows = model.rows()
    est = model.fit(rows, None, None, "partial_fit") if model.partial else fitted(model)
    data = skops.dumps(est)
    unknown = skops.get_untrusted_types(data=data)
    trusted = "cmstats.", "sklearn.model_selection.", model.cls.__module__  # cv is the user's
    assert all(name.startswith(trusted) for name in unknown)
    expected = model.everything(est, rows) if model.partial else known(model)
    assert_equal(model, skops.loads(data, trusted=unknown), expected)
