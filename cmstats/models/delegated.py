"""Outputs of an estimator that holds another: a search, a pipeline of two views."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

__all__ = ["DelegatedOutputs", "delegated", "has"]


def has(name: str) -> Callable[[DelegatedOutputs], bool]:
    """Whether the inner model has a method of that name, for `available_if`."""

    def check(self: DelegatedOutputs) -> bool:
        getattr(self._inner(name), name)
        return True

    return check


def delegated(name: str) -> Any:
    """The inner model's method of that name, where it has one, on the views that it takes."""

    def method(self: DelegatedOutputs, X: Any = None, y: Any = None, **kwargs: Any) -> Any:
        check_is_fitted(self)
        call, views = getattr(self._inner(name), name), self._passed(X, y)
        if len(views) == 1 and "y" in _required(call):  # whose absence it names in a sentence
            kwargs["y"] = None
        return call(*views, **kwargs)

    method.__name__ = name
    method.__qualname__ = f"DelegatedOutputs.{name}"
    method.__doc__ = f"The `{name}` of the fitted model inside."
    return available_if(has(name))(method)


def _required(call: Any) -> list[str]:
    """The parameters without a default."""
    parameters = inspect.signature(call).parameters.values()
    return [p.name for p in parameters if p.default is p.empty]


class DelegatedOutputs(BaseEstimator):
    """The methods of models that map rows to outputs, each there where the inner model has it.

    They take Dask data where the inner model's own do.
    """

    def _inner(self, name: str) -> Any:
        """The inner model: fitted, or before `fit` the one that will be."""
        raise NotImplementedError

    def _passed(self, X: Any, y: Any) -> tuple[Any, ...]:
        """The views as the inner model takes them."""
        return (X,) if y is None else (X, y)

    transform = delegated("transform")
    predict = delegated("predict")
    embed = delegated("embed")
    similarity = delegated("similarity")
    fuse = delegated("fuse")
    logpdf = delegated("logpdf")
    sample = delegated("sample")
    score_samples = delegated("score_samples")
    outlier_scores = delegated("outlier_scores")
    responsibilities = delegated("responsibilities")
