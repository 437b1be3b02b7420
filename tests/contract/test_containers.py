"""Frames, lists, sparse matrices, rows on a disk and shards are rows; frames come back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.base import clone

from cmstats import open_parquet, open_shards

from .registry import Model, every, fitted, known
from .rows import Rows

Holder = Callable[[Any, Path], Any]


class Sliced:
    """Rows behind shape, dtype, ndim and slices, which cannot be read whole."""

    def __init__(self, a: Any) -> None:
        self._a, self.shape, self.dtype, self.ndim = a, a.shape, a.dtype, a.ndim

    def __getitem__(self, at: Any) -> Any:
        return self._a[at]

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise MemoryError("read whole")


def _frame(a: Any, path: Path) -> Any:
    return pd.DataFrame(a, columns=[f"{path.name}{j}" for j in range(a.shape[1])])


def _polars(a: Any, path: Path) -> Any:
    return pytest.importorskip("polars").from_pandas(_frame(a, path))


def _memmap(a: Any, path: Path) -> Any:
    np.save(path, a)
    return np.load(f"{path}.npy", mmap_mode="r")


def _hdf5(a: Any, path: Path) -> Any:
    return pytest.importorskip("h5py").File(path, "w").create_dataset("a", data=a)


def _shards(a: Any, path: Path) -> Any:
    path.mkdir()
    for i, part in enumerate(np.split(a, [7, 8])):
        np.save(path / f"{path.name}_{i}.npy", part)
    return open_shards(path)


def _parquet(a: Any, path: Path) -> Any:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    values = pa.FixedSizeListArray.from_arrays(pa.array(a.reshape(-1)), a.shape[1])
    pq.write_table(pa.table({"e": values}), path)
    return open_parquet(path)


IN_MEMORY: dict[str, Holder] = {
    "lists": lambda a, path: a.tolist(),
    "pandas": _frame,
    "nullable": lambda a, path: _frame(a, path).astype("Float64"),
    "polars": _polars,
}
ON_DISK: dict[str, Holder] = {
    "memmap": _memmap,
    "hdf5": _hdf5,
    "slices": lambda a, path: Sliced(a),
    "shards": _shards,
    "parquet": _parquet,
}
IN_MEMORY_ONLY = ("condition", "sample")
"""Methods that take dense rows in memory."""

SPARSE = ["csr_matrix", "csc_matrix", "coo_matrix", "lil_matrix", "csr_array", "csc_array"]


def _sparse(make: Callable[[Any], Any], a: Any, path: Path) -> Any:
    return make(a)


def hold(rows: Rows, holder: Holder, folder: Path) -> Rows:
    folder.mkdir(parents=True)
    return Rows({k: holder(v, folder / k) for k, v in rows.views.items()}, rows.labels)


def check(
    model: Model,
    rows: Rows,
    holders: dict[str, Holder],
    folder: Path,
    without: Any = (),
    not_sliced: Any = (),
) -> None:
    """Assert that rows held in each of these ways are the rows in memory.

    `without` are methods that are not called, `not_sliced` those that are not where rows come by
    slices only.
    """
    some = rows.take(slice(0, 9))
    expected = model.calls(model.fit(rows), some, without=without)
    for name, holder in holders.items():
        left_out = (*without, *not_sliced) if name == "slices" else without
        est = model.fit(hold(rows, holder, folder / name / "rows"))
        found = model.calls(est, hold(some, holder, folder / name / "some"), without=left_out)
        kept = {k: v for k, v in expected.items() if k.partition(" ")[0] not in left_out}
        model.compare(found, kept, 1e-9)


@every(variants=False, door=True)
def test_frames_and_lists_are_rows(model: Model, tmp_path: Path) -> None:
    check(model, model.rows(), IN_MEMORY, tmp_path)


@every(variants=False, door=True)
def test_rows_on_a_disk_are_rows(model: Model, tmp_path: Path) -> None:
    ways = {k: v for k, v in ON_DISK.items() if not (model.whole and k == "slices")}
    check(model, model.rows(), ways, tmp_path, IN_MEMORY_ONLY, model.in_memory)


def thinned(rows: Rows) -> Rows:
    return rows.map(lambda a: np.where(np.abs(a - np.median(a)) > 0.7 * a.std(), a, 0))


@every(lambda m: m.sparse, variants=False, door=True)
def test_sparse_matrices_are_rows(model: Model, tmp_path: Path) -> None:
    rows = thinned(model.rows())
    ways: dict[str, Holder] = {
        name: functools.partial(_sparse, getattr(scipy.sparse, name)) for name in SPARSE
    }
    check(model, rows, ways, tmp_path, IN_MEMORY_ONLY)
    first = next(iter(rows.views))
    mixed = rows.but(first, scipy.sparse.csr_array(rows.views[first]))
    if len(rows.views) > 1:
        found, expected = model.fit(mixed), model.fit(rows)
        model.compare(model.calls(found, rows), model.calls(expected, rows), 1e-9)


@every(lambda m: m.partial and m.sparse, variants=False, door=True)
def test_partial_fit_takes_sparse_batches_and_rows_on_a_disk(model: Model, tmp_path: Path) -> None:
    rows = thinned(model.rows())
    holders = {"sparse": lambda a, path: scipy.sparse.csr_matrix(a), "memmap": _memmap}
    expected = model.calls(model.fit(rows), rows) if not model.mapped else None
    for name, holder in holders.items():
        est = model.make()
        for at in (slice(0, 50), slice(50, None)):
            part = hold(rows.take(at), holder, tmp_path / f"{name}{at.start}")
            model.fit(part, None, est, "partial_fit")
        if expected is not None:
            model.compare(model.calls(est, rows), expected, 1e-9)


# ---------------------------------------------------------------- containers with a meaning
class Backed:
    """A sparse matrix on a disk, as it is known to users: shape, dtype and CSR for a slice."""

    def __init__(self, a: Any) -> None:
        self._a, self.shape, self.dtype = scipy.sparse.csr_matrix(a), a.shape, a.dtype

    def __getitem__(self, rows: slice) -> Any:
        assert isinstance(rows, slice)
        return self._a[rows]


def _sparse_frame(a: Any, path: Path) -> Any:
    columns = [f"{path.name}{j}" for j in range(a.shape[1])]
    return pd.DataFrame.sparse.from_spmatrix(scipy.sparse.csr_matrix(a), columns=columns)


def _raw(a: Any, path: Path) -> Any:
    """Values of bfloat16 as `numpy.load` gives them: raw bytes."""
    upper = (a.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    np.save(path, upper.view("V2"))
    return np.load(f"{path}.npy", mmap_mode="r" if path.name in "xview1" else None)


def truncated(a: Any) -> Any:
    """Values that bfloat16 holds exactly."""
    return (a.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


@every(lambda m: m.sparse and not m.torch, variants=False, door=True)
def test_sparse_rows_on_a_disk_and_in_frames_are_rows(model: Model, tmp_path: Path) -> None:
    rows = thinned(model.rows())
    holders: dict[str, Holder] = {"frame": _sparse_frame, "backed": lambda a, path: Backed(a)}
    check(model, rows, holders, tmp_path, (*IN_MEMORY_ONLY, *model.in_memory))


@every(variants=False, door=True)
def test_columns_of_vectors_are_rows(model: Model, tmp_path: Path) -> None:
    holders: dict[str, Holder] = {
        "series": lambda a, path: pd.Series(list(a), name=path.name),
        "frame": lambda a, path: pd.DataFrame({path.name: list(a)}),
    }
    check(model, model.rows(), holders, tmp_path)


@every(variants=False, door=True)
def test_raw_bfloat16_is_single_precision(model: Model, tmp_path: Path) -> None:
    rows = model.rows().map(truncated)
    folder = tmp_path / "raw"
    est = model.fit(hold(rows, _raw, folder))
    some = hold(rows.take(slice(0, 9)), _raw, tmp_path / "some")
    expected = model.calls(model.fit(rows), rows.take(slice(0, 9)), without=IN_MEMORY_ONLY)
    found = model.calls(est, some, without=IN_MEMORY_ONLY)
    model.compare(found, expected, 1e-5)


@every(lambda m: m.missing, variants=False, door=True)
def test_what_is_masked_is_missing(model: Model) -> None:
    rows = model.rows()
    masked = rows.map(lambda a: np.ma.masked_greater(np.where(np.isnan(a), 1e30, a), 1e20))
    model.compare(model.everything(model.fit(masked), rows), known(model))


@every(lambda m: not m.missing, variants=False, door=True)
def test_masked_rows_are_not_read_as_if_they_were_whole(model: Model) -> None:
    rows = model.rows()
    first = next(iter(rows.views))
    whole = rows.but(first, np.ma.array(rows.views[first], mask=False))
    model.compare(model.everything(model.fit(whole), rows), known(model))
    holes = np.ma.array(rows.views[first], mask=rows.views[first] > 1e3)
    holes[3, 1] = np.ma.masked
    with pytest.raises(ValueError, match="NaN"):
        model.fit(rows.but(first, holes))


# ---------------------------------------------------------------------- names and outputs
@every(variants=False, door=True)
def test_sentences_name_columns(model: Model) -> None:
    rows = frames(model.rows())
    for name, view in rows.views.items():
        bad = view.copy()
        bad.iloc[3, 1] = np.inf
        sentence = rf"row 3, column 1 \('{name}1'\)"
        with pytest.raises(ValueError, match=sentence):
            model.fit(rows.but(name, bad))
        bad = view.astype(object)
        bad.iloc[:, 1] = "a"
        with pytest.raises(ValueError, match=rf"column '{name}1' holds .* not numbers"):
            model.fit(rows.but(name, bad))


@every(variants=False, door=True)
def test_names_are_unique_or_refused(model: Model) -> None:
    rows = frames(model.rows())
    first = next(iter(rows.views))
    view = rows.views[first]
    same = view.set_axis(["a", "a", *view.columns[2:]], axis=1)
    assert names_of(model, model.fit(rows.but(first, same)))[0][:3] == ["a", "a.1", view.columns[2]]
    levels = pd.MultiIndex.from_tuples([("p", c) for c in view.columns])
    found = names_of(model, model.fit(rows.but(first, view.set_axis(levels, axis=1))))
    assert found[0] == [f"p_{c}" for c in view.columns]
    mixed = view.set_axis([0, *view.columns[1:]], axis=1)
    with pytest.raises(TypeError, match=r"names of several types.*astype\(str\)"):
        model.fit(rows.but(first, mixed))


@every(lambda m: m.moments and not m.mapped, variants=False, door=True)
def test_names_travel_with_moments(model: Model) -> None:
    rows = frames(model.rows())
    est = model.make().fit_moments(model.moments_of(None, rows, folds=model.folds))
    assert names_of(model, est)[0] == list(next(iter(rows.views.values())).columns)


def frames(rows: Rows, library: str = "pandas") -> Rows:
    out = {}
    for name, a in rows.views.items():
        frame = _frame(a, Path(name))
        frame.index = pd.Index([f"{name} {i}" for i in range(len(a))])
        out[name] = (
            frame if library == "pandas" else pytest.importorskip(library).from_pandas(frame)
        )
    return Rows(out, rows.labels)


def names_of(model: Model, est: Any) -> list[list[str]]:
    """The names of the columns of each view that a fit remembers."""
    if model.many:
        return [list(names) for names in est.feature_names_in_]
    names = [list(est.feature_names_in_)]
    return [*names, list(est.y_feature_names_in_)] if hasattr(est, "y_feature_names_in_") else names


@every(variants=False, door=True)
def test_names_of_columns_are_remembered_and_checked(model: Model) -> None:
    rows = frames(model.rows())
    est = model.fit(rows)
    columns = [list(v.columns) for v in rows.views.values()]
    remembered = names_of(model, est)
    assert remembered == columns[: len(remembered)]
    for name, view in list(rows.views.items())[: len(remembered)]:
        renamed = rows.but(name, view[view.columns[::-1]])
        with pytest.raises(ValueError, match=r"feature names|column 0 is"):
            model.calls(est, renamed)
        if model.score:
            with pytest.raises(ValueError, match=r"feature names|column 0 is"):
                model.score_of(est, renamed)
        if model.partial:
            with pytest.raises(ValueError, match=r"feature names|column 0 is"):
                model.fit(renamed, None, est, "partial_fit")
    model.fit(model.rows(), None, est)
    assert not hasattr(est, "feature_names_in_")
    assert not hasattr(est, "y_feature_names_in_")


def come_out(model: Model, library: str) -> None:
    module = pytest.importorskip(library)
    rows = frames(model.rows(), library)
    est = model.make().set_output(transform=library)
    plain = model.calls(fitted(model), model.rows(), ("transform",))
    for one in (model.fit(rows, None, est), model.fit(rows, None, clone(est))):
        for name, values in model.calls(one, rows, ("transform",)).items():
            views = [rows.views[v] for v in name.split()[1:] if v in rows.views]
            views = views or list(rows.views.values())
            columns = [c for frame in values for c in frame.columns]
            assert len({*columns}) == len(columns), name
            for frame, expected in zip(values, plain[name], strict=True):
                assert isinstance(frame, module.DataFrame), name
                np.testing.assert_allclose(frame.to_numpy(), expected, atol=1e-9)
                if hasattr(one, "get_feature_names_out"):
                    names = list(one.get_feature_names_out())
                    assert all(c.endswith(n) for c, n in zip(frame.columns, names, strict=True))
                    assert frame is not values[0] or "y" in name or list(frame.columns) == names
                if library == "pandas":
                    assert any(list(frame.index) == list(v.index) for v in views)
    back = model.calls(est.set_output(transform="default"), rows, ("transform",))
    assert all(isinstance(a, np.ndarray) for values in back.values() for a in values)


@every(lambda m: m.has("set_output"), variants=False, door=True)
def test_pandas_frames_come_out(model: Model) -> None:
    come_out(model, "pandas")


@every(lambda m: m.has("set_output"), variants=False, door=True)
def test_polars_frames_come_out(model: Model) -> None:
    come_out(model, "polars")


@every(lambda m: m.has("fit_transform"), variants=False, door=True)
def test_fit_transform_is_fit_and_transform(model: Model) -> None:
    rows = model.rows()
    found = model.fit(rows, None, model.make(), "fit_transform")
    expected = fitted(model).transform(*model.args(rows)[:1])
    for a, b in zip(
        found if isinstance(found, list) else [found],
        expected if isinstance(expected, list) else [expected],
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=max(model.atol, 1e-9))
