"""Rows to fit to, and what a fitted model makes of them as plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cmstats.arrays import is_array, to_numpy

N = 90


@dataclass(frozen=True)
class Rows:
    """Paired rows of named views, and the class of each where a model asks for it."""

    views: dict[str, Any]
    labels: Any = None

    def __len__(self) -> int:
        return int(next(iter(self.views.values())).shape[0])

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["views"][name]
        except KeyError:
            raise AttributeError(name) from None

    def take(self, at: Any) -> Rows:
        """Some rows, by slice or by number."""
        views = {k: v[at, ...] if isinstance(at, slice) else v[at] for k, v in self.views.items()}
        return Rows(views, None if self.labels is None else self.labels[at])

    def map(self, f: Callable[[Any], Any]) -> Rows:
        """Every view through a function."""
        return replace(self, views={k: f(v) for k, v in self.views.items()})

    def but(self, name: str, value: Any) -> Rows:
        """The same with another matrix for one view."""
        return replace(self, views={**self.views, name: value})


def pair(n: int = N, seed: int = 0) -> Rows:
    """Two views of one latent of three dimensions, whose directions lie well apart."""
    rng = np.random.default_rng(20261123)
    A, B = rng.normal(size=(3, 6)), rng.normal(size=(3, 4))
    shift = rng.normal(size=6)
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3)) * [3.0, 1.5, 0.8]
    x = z @ A + np.array([0.5, 0.8, 1.1, 0.6, 0.9, 1.3]) * rng.normal(size=(n, 6)) + shift
    y = z @ B + np.array([1.0, 1.5, 0.7, 1.2]) * rng.normal(size=(n, 4)) + 5
    return Rows({"x": x, "y": y}, (z[:, 0] > 0) + (z[:, 1] > 0).astype(int))


def alone(n: int = N, seed: int = 0) -> Rows:
    """One view."""
    return Rows({"x": pair(n, seed).x})


def several(n: int = N, seed: int = 0) -> Rows:
    """Three views."""
    rows = pair(n, seed)
    return Rows({"view0": rows.x[:, ::2], "view1": rows.x[:, 1::2], "view2": rows.y})


def aligned(n: int = N, seed: int = 0) -> Rows:
    """Two views in one space: the second is the first with noise, and a shift."""
    x = pair(n, seed).x[:, :4]
    noise = np.random.default_rng(seed + 1).normal(size=x.shape)
    return Rows({"x": x, "y": x + 1.5 * noise + np.array([5.0, 0.0, 1.0, 2.0])})


def several_aligned(n: int = N, seed: int = 0) -> Rows:
    """Three views in one space."""
    rows = aligned(n, seed)
    noise = np.random.default_rng(seed + 2).normal(size=rows.x.shape)
    return Rows({"view0": rows.x, "view1": rows.y, "view2": rows.x + noise})


def unlabelled(n: int = N, seed: int = 0) -> Rows:
    """Two views, without classes."""
    return replace(pair(n, seed), labels=None)


def with_holes(rows: Callable[..., Rows]) -> Callable[..., Rows]:
    """The same rows with scattered entries, half a view and some whole rows missing."""

    def holes(n: int = N, seed: int = 0) -> Rows:
        whole = rows(n, seed)
        rng = np.random.default_rng(1)
        views = {k: v.copy() for k, v in whole.views.items()}
        first, last = next(iter(views)), list(views)[-1]
        views[first][rng.random(n) < 0.15, 1] = np.nan
        if last != first:
            views[last][rng.random(n) < 0.2] = np.nan
        for row in (3, n // 2):
            for v in views.values():
                v[row] = np.nan
        return replace(whole, views=views)

    return holes


def with_gaps(n: int = N, seed: int = 0) -> Rows:
    """Features that are complete, and targets of which some are observed in fewer rows."""
    rows = unlabelled(n, seed)
    y = rows.y.copy()
    y[np.random.default_rng(1).random(y.shape) < 0.2] = np.nan
    y[:, 1] = rows.y[:, 1]
    y[3] = np.nan
    return rows.but("y", y)


def arrays_of(value: Any) -> list[Any]:
    """The arrays and numbers in what a method returns, in order."""
    if value is None:
        return []
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)) and not _is_numbers(value):
        return [a for one in value for a in arrays_of(one)]
    return [value]


def _is_numbers(value: Any) -> bool:
    return all(isinstance(v, (int, float)) for v in value)


def is_number_like(value: Any) -> bool:
    """Whether an attribute holds numbers, in whatever library."""
    if isinstance(value, (bool, str)) or value is None:
        return False
    if isinstance(value, (int, float)) or is_array(value):
        return "object" not in str(getattr(value, "dtype", ""))
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, (list, tuple)) and bool(value) and all(map(is_number_like, value))


def fitted_numbers(est: Any) -> dict[str, list[Any]]:
    """Every public fitted attribute that holds numbers, but counts of iterations.

    These depend on rounding where rows are summed in another order.
    """
    est = getattr(est, "best_estimator_", getattr(est, "model_", est))
    names = {n for cls in type(est).__mro__ for n in vars(cls)} | set(vars(est))
    named = {n for n in names if n.endswith("_") and n[0] != "_"} - {"n_iter_"}
    found = {n: getattr(est, n, None) for n in named}
    return {n: arrays_of(v) for n, v in sorted(found.items()) if is_number_like(v)}


def assert_same(
    found: Any, expected: Any, atol: float = 1e-10, without: Any = (), signless: Any = ()
) -> None:
    """Equal numbers under equal names, up to `atol` in units of the largest.

    Columns of the values named in `signless` may be multiplied by -1.
    """
    assert {*found} - {*without} == {*expected} - {*without}
    for name in expected:
        if name in without:
            continue
        for a, b in zip(found[name], expected[name], strict=True):
            a, b = np.asarray(to_numpy(a)), np.asarray(to_numpy(b))
            if name in signless:
                a = a * np.sign(np.sum(a * b, axis=-2, keepdims=True))
            scale = max(1.0, float(np.nanmax(np.abs(b), initial=0.0)))
            near = a.shape == b.shape and a.dtype.kind == b.dtype.kind == "f"
            if near and bool(np.all(np.abs(a - b) <= atol * scale)):
                continue  # the function below takes ten times as long
            np.testing.assert_allclose(a, b, rtol=0, atol=atol * scale, err_msg=name)
