"""Access to a fitted model by duck typing, and checks of common parameters.

Nothing here imports a model: what inference needs are ``moments_``, ``x_weights_`` and other
fitted attributes.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

from sklearn.utils.validation import check_is_fitted

from cmstats.moments.moments import Moments

__all__ = [
    "check_level",
    "component_index",
    "feature_names",
    "inner_model",
    "total_moments",
]


def inner_model(model: Any) -> Any:
    """The fitted model inside a search (`best_estimator_`) or a pipeline (`model_`)."""
    check_is_fitted(model)
    for name in ("best_estimator_", "model_"):
        if hasattr(model, name):
            return inner_model(getattr(model, name))
    return model


def total_moments(model: Any) -> Moments:
    """The moments of blocks "x" and "y" that a model was fitted to, all folds added up.

    Raises
    ------
    TypeError
        If it was not fitted to such moments.
    """
    seen = getattr(model, "moments_", None)
    total = functools.reduce(operator.add, seen) if isinstance(seen, list) else seen
    if not isinstance(total, Moments) or not {"x", "y"} <= set(total.names):
        raise TypeError(
            f"{type(model).__name__} was not fitted on the moments of two views x and y: pass a "
            "fitted CCA"
        )
    return total


def feature_names(model: Any, view: str) -> list[str]:
    """The names of a view's columns in the data, or x0, x1, ..."""
    names = getattr(model, "feature_names_in_" if view == "x" else "y_feature_names_in_", None)
    if names is not None:
        return [str(name) for name in names]
    return [f"{view}{i}" for i in range(getattr(model, f"{view}_weights_").shape[0])]


def component_index(k: int) -> Any:
    """The index of a table of components, which are numbered from 1."""
    import pandas as pd

    return pd.RangeIndex(1, k + 1, name="component")


def check_level(level: Any) -> float:
    """A confidence level strictly between 0 and 1."""
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0 < level < 1:
        raise ValueError(f"level={level!r} must lie between 0 and 1, for example 0.95")
    return float(level)
