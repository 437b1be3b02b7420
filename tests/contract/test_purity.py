"""Solving writes nothing: the solution is returned, and the base publishes it."""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from cmstats import MomentsSearchCV, TwoViewPipeline

from .registry import Model, every, fitted


def refuse(self: Any, name: str, value: Any) -> None:
    raise AssertionError(f"solving sets {name}")


def read_only(est: Any) -> Any:
    """The same estimator, which cannot be written to by assignment."""
    cls = type(f"ReadOnly{type(est).__name__}", (type(est),), {"__setattr__": refuse})
    copy = object.__new__(cls)
    copy.__dict__.update(vars(est))
    return copy


def snapshot(value: Any) -> Any:
    return value.copy() if isinstance(value, np.ndarray) else value


@every(lambda m: m.moments and not issubclass(m.cls, (MomentsSearchCV, TwoViewPipeline)))
def test_solving_reads_the_estimator_and_writes_nothing(model: Model) -> None:
    est = read_only(fitted(model))
    parts = est._kept()
    before = {name: snapshot(value) for name, value in vars(est).items()}
    chosen: dict[str, Any] = {}
    if est._open_parameters():
        chosen, _ = est._choose(list(parts))
    solution = est._solved(functools.reduce(operator.add, parts), chosen)
    assert vars(est).keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_equal(vars(est)[name], value) if isinstance(value, np.ndarray) else None
        assert isinstance(value, np.ndarray) or vars(est)[name] is value
    assert type(solution) is type(est._solution)
