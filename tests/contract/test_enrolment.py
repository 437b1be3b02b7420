"""Every public estimator is enrolled, and every public method of it is called."""

from __future__ import annotations

import inspect

from sklearn.base import BaseEstimator

import cmstats
import cmstats.baselines
import cmstats.model_selection
import cmstats.models

from .registry import CALLS, CALLS_OF_MANY, MODELS, Model, every, fitted

NOT_OF_ROWS = {
    # fitting, what says nothing of rows, and what other properties and the tests of a model call
    "fit", "partial_fit", "fit_moments", "fit_transform", "score_moments", "ratio_moments",
    "correlations_on", "get_params", "set_params", "set_output", "get_feature_names_out",
    "get_metadata_routing", "calibrate", "save", "load",
}  # fmt: skip


def public_estimators() -> set[type]:
    modules = (cmstats, cmstats.baselines, cmstats.models, cmstats.model_selection)
    public = [getattr(module, name) for module in modules for name in module.__all__]
    return {c for c in public if inspect.isclass(c) and issubclass(c, BaseEstimator)}


def test_every_public_estimator_is_enrolled_with_one_instance_for_all_properties() -> None:
    assert public_estimators() == {model.cls for model in MODELS}
    assert public_estimators() == {model.cls for model in MODELS if model.main}


def test_every_entry_has_a_name_of_its_own() -> None:
    names = [model.name for model in MODELS]
    assert len(names) == len(set(names))


@every(variants=False)
def test_every_public_method_is_called(model: Model) -> None:
    """A method added to an estimator needs a line in `CALLS`."""
    calls = CALLS_OF_MANY if model.many else CALLS
    called = {name.partition(" ")[0] for name in calls} | NOT_OF_ROWS
    for name, _ in inspect.getmembers(model.cls, callable):
        if not name.startswith("_") and "request" not in name:
            assert name in called, f"{name} is called on no rows"


@every(variants=None)
def test_some_method_is_called_on_rows(model: Model) -> None:
    rows = model.rows()
    found = model.calls(fitted(model), rows.take(slice(0, 9)))
    assert found
    for name in model.without:
        assert name not in found


@every(lambda m: bool(m.kinds), variants=None)
def test_every_kind_of_similarity_is_called(model: Model) -> None:
    found = model.calls(fitted(model), model.rows().take(slice(0, 9)))
    for kind in model.kinds:
        assert {f"embed kind={kind}", f"similarity kind={kind}"} <= {*found}


@every(lambda m: bool(m.broken))
def test_what_is_broken_is_a_property(model: Model) -> None:
    for name, reason in model.broken.items():
        assert name.startswith("test_")
        assert reason
