"""Dask in = the numbers of memory; lazy results out, computed when asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from .registry import Model, every, fitted, known
from .rows import Rows

pytestmark = pytest.mark.dask
UNEVEN = (30, 1, 1, 20, 38)
OF_ROWS = ("transform", "predict", "embed", "logpdf", "outlier_scores", "score_samples")


def lazy(rows: Rows, chunks: Any = UNEVEN) -> Rows:
    da = pytest.importorskip("dask.array")
    return rows.map(lambda a: da.from_array(a, chunks=(chunks, a.shape[1])))


def computed(found: dict[str, Any]) -> dict[str, Any]:
    da = pytest.importorskip("dask.array")
    for name, values in found.items():
        for a in values:
            assert isinstance(a, da.Array), name
            assert a.chunks[0] == UNEVEN, name
    return {name: [a.compute() for a in values] for name, values in found.items()}


@every(lambda m: bool(m.dask), variants=False)
def test_results_are_lazy_and_those_in_memory(model: Model) -> None:
    rows, est = model.rows(), fitted(model)
    found = computed(model.calls(est, lazy(rows), OF_ROWS))
    expected = model.calls(est, rows, OF_ROWS)
    model.compare(found, expected, 1e-9)
    for name, values in expected.items():
        for a, b in zip(found[name], values, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


@every(lambda m: m.dask == "fit", variants=None)
def test_fit_and_score_are_those_in_memory(model: Model) -> None:
    rows = model.rows()
    est = model.fit(lazy(rows))
    model.compare(model.everything(est, rows), known(model), 1e-9)
    if model.score:
        assert model.score_of(est, lazy(rows)) == pytest.approx(
            model.score_of(fitted(model), rows), abs=1e-9
        )


@every(lambda m: m.dask == "fit" and m.weights, variants=False, door=True)
def test_weights_count_rows(model: Model) -> None:
    da = pytest.importorskip("dask.array")
    rows = model.rows()
    w = np.random.default_rng(1).integers(0, 4, len(rows)).astype(float)
    w[:32] = 0  # whole chunks without weight
    expected = model.everything(model.fit(rows, w), rows)
    for weights in (w, da.from_array(w, chunks=31)):
        model.compare(model.everything(model.fit(lazy(rows), weights), rows), expected, 1e-9)


@every(lambda m: m.dask == "fit" and m.partial and not m.mapped, variants=None, door=True)
def test_partial_fit_deals_on_where_it_stopped(model: Model) -> None:
    rows, est = model.rows(), model.make()
    chunked = lazy(rows)
    for at in (slice(0, 33), slice(33, 35), slice(35, 90)):
        model.fit(Rows({k: v[at] for k, v in chunked.views.items()}), None, est, "partial_fit")
    model.compare(model.everything(est, rows), known(model), 1e-9)


@every(lambda m: m.dask == "outputs", variants=False)
def test_a_fit_that_needs_its_rows_in_memory_says_so(model: Model) -> None:
    with pytest.raises((TypeError, ValueError), match=r"needs its rows in memory.*Dask|Dask array"):
        model.fit(lazy(model.rows()))


@every(lambda m: m.dask == "fit", variants=False, door=True)
def test_values_that_are_not_finite_are_named_with_row_and_chunk(model: Model) -> None:
    rows = model.rows()
    first, a = next(iter(rows.views.items()))
    bad = a.copy()
    bad[55, 1] = np.inf
    with pytest.raises(
        ValueError, match=r"1 infinite value, the first at row 55, column 1.*chunk 4"
    ):
        model.fit(lazy(rows.but(first, bad)))


@every(lambda m: bool(m.dask), variants=False, door=True)
def test_single_precision_stays(model: Model) -> None:
    rows = model.rows().map(lambda a: a.astype(np.float32))
    found = model.calls(fitted(model), lazy(rows), OF_ROWS)
    for name, values in found.items():
        for a in values:
            assert a.dtype.kind != "f" or a.dtype == np.float32, name


@every(lambda m: bool(m.dask), variants=False, door=True)
def test_a_filter_may_leave_chunks_empty(model: Model) -> None:
    da = pytest.importorskip("dask.array")
    rows, est = model.rows(), fitted(model)
    keep = np.ones(len(rows), dtype=bool)
    keep[30:52] = False  # three whole chunks
    some = rows.take(keep)
    mask = da.from_array(keep, chunks=(UNEVEN,))
    chunked = Rows({k: a[mask] for k, a in lazy(rows).views.items()})
    found = model.calls(est, chunked, (*OF_ROWS, "similarity"))
    found = {name: [a.compute() for a in values] for name, values in found.items()}
    model.compare(found, model.calls(est, some, (*OF_ROWS, "similarity")), 1e-9)
    if model.dask == "fit":
        expected = model.everything(model.fit(some), some)
        model.compare(model.everything(model.fit(chunked), some), expected, 1e-9)
