"""The digits of results in the corners: far rows, large nuisances, single precision, rank."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from sklearn.metrics.pairwise import rbf_kernel

from benchmarks._measure import Rows
from cmstats import CCA, Moments
from cmstats.kernels.gram import gram

FORMS: tuple[Literal["scatter", "root"], ...] = ("scatter", "root")
NOTE = "largest absolute error of a canonical correlation, against double precision"


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    n = 300 if quick else 3000
    for part in (_far_rows, _nuisance, _rank, _gram):
        yield from part(n)


def _views(n: int, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 8)) @ rng.normal(size=(8, 8))
    return X, X[:, :4] + 3 * rng.normal(size=(n, 4))


def _error(found: Any, truth: Any) -> float:
    return float(np.abs(found.correlations_ - truth.correlations_).max())


def _far_rows(n: int) -> Iterator[Rows]:
    """A half of the rows lies far away and weighs nothing, or hardly anything."""
    X, Y = _views(n)
    plain = _error(CCA().fit(*(a.astype(np.float32) for a in (X, Y))), CCA().fit(X, Y))
    for weight in (0.0, 1e-9):
        for far in (100, 1_000, 10_000):
            x, y = (np.concatenate([a, a + far * a.std()]).astype(np.float32) for a in (X, Y))
            w = np.repeat([1.0, weight], n)
            truth = CCA(solver="svd").fit(x.astype(np.float64), y.astype(np.float64), w)
            yield {
                f"float32, weight {weight:g} on a half of the rows, {far:g} sd away": {
                    "error": _error(CCA().fit(x, y, w), truth), "without_these_rows": plain,
                    "note": NOTE,
                }
            }  # fmt: skip


def _nuisance(n: int) -> Iterator[Rows]:
    rng = np.random.default_rng(1)
    (X, Y), Z = _views(n), rng.normal(size=(n, 3))
    truth = CCA().fit_moments(Moments.from_data(x=X, y=Y, z=Z).partial_out("z"))
    for size in (1e2, 1e4, 1e6):
        x, y = (a + size * Z @ rng.normal(size=(3, a.shape[1])) for a in (X, Y))
        found, said = {}, ""
        for form in FORMS:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                m = Moments.from_data(form=form, x=x, y=y, z=Z).partial_out("z")
            said += f", {form} warns" if caught else ""
            found[form] = _error(CCA(solver="svd").fit_moments(m), truth)
        yield {f"partial_out of a nuisance {size:g} times as large": {**found, "note": NOTE + said}}


def _rank(n: int) -> Iterator[Rows]:
    rng = np.random.default_rng(2)
    X = rng.normal(size=(n, 32)) @ rng.normal(size=(32, 32))
    Y = X[:, :3] + 3 * rng.normal(size=(n, 3))
    X = X - X.mean(axis=1, keepdims=True)
    truth = CCA(solver="svd").fit(X[:, :-1], Y)
    for offset in (0.0, 100.0):
        x, y = (X + offset).astype(np.float32), Y.astype(np.float32)
        yield {
            f"float32 of rank 31 in 32 columns, mean {offset:g}": {
                "error": _error(CCA().fit(x, y), truth),
                "note": f"{NOTE}; the direction of rounding errors is dropped",
            }
        }


def _gram(n: int) -> Iterator[Rows]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(min(n, 600), 20))
    for far in (100.0, 1_000.0, 10_000.0):
        x = (X + far * (np.arange(len(X)) % 2)[:, None]).astype(np.float32)
        truth = rbf_kernel(x.astype(np.float64), gamma=0.3)
        yield {
            f"rbf kernel of float32, two groups {far:g} apart": {
                "error": float(np.abs(gram(x, gamma=0.3) - truth).max()),
                "scikit_learn": float(np.abs(rbf_kernel(x, gamma=0.3) - truth).max()),
                "note": "largest absolute error of a kernel value",
            }
        }
