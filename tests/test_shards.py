"""Rows on a disk: shards, parquet, HDF5 and zarr read run by run, shards written, and faults."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmstats import (
    CCA,
    ConditionalGaussian,
    Moments,
    MomentsSearchCV,
    map_rows,
    open_parquet,
    open_shards,
    write_shards,
)
from cmstats.rows import chunks as streams
from cmstats.rows.files import ShardedMatrix

pytestmark = [pytest.mark.ordinary, pytest.mark.usefixtures("two_threads")]

SIZES = (1500, 700, 1, 0, 1299, 1, 1, 498)  # uneven, single rows, an empty shard
N = sum(SIZES)


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(N, 6))
    # Canonical correlations that lie apart, or single weights would be ill-determined.
    return X, X[:, :4] * [8, 2, 1, 0.4] + rng.normal(size=(N, 4))


@pytest.fixture
def short_runs(monkeypatch: Any) -> None:
    """Runs of the least length, 1024 rows."""
    monkeypatch.setattr(streams, "READ_BYTES", 1)


def save(folder: Path, name: str, a: Any, sizes: Any = SIZES) -> None:
    (folder / name).mkdir(parents=True)
    for i, part in enumerate(np.split(a, np.cumsum(sizes)[:-1])):
        np.save(folder / name / f"{name}_{i}.npy", part)


@pytest.fixture
def layout(tmp_path: Path, views: Any) -> Path:
    """A folder of paired shards as clip-retrieval writes them."""
    for name, a in zip(("img_emb", "text_emb"), views, strict=True):
        save(tmp_path, name, a)
    return tmp_path


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("cmstats-read")]


# --------------------------------------------------------------------- equal to memory
@pytest.mark.parametrize(
    ("dtype", "tolerance", "sizes"),
    [
        ("f8", 1e-10, SIZES),
        ("f8", 1e-10, (1,) * 40 + (N - 40,)),
        ("f4", 1e-6, SIZES),
        ("f2", 1e-6, SIZES),
    ],
)
def test_a_fit_to_shards_equals_one_in_memory(
    tmp_path: Path, views: Any, dtype: str, tolerance: float, sizes: Any, short_runs: None
) -> None:
    at = np.random.default_rng(1).permutation(N)
    X, Y = (a[at].astype(dtype) for a in views)
    save(tmp_path, "img_emb", X, sizes)
    save(tmp_path, "text_emb", Y, sizes)
    x, y = open_shards(tmp_path)
    assert x.dtype == dtype
    for parameters in ({}, {"shrinkage": "cv"}):
        found, expected = (CCA(**parameters).fit(*pair) for pair in ((x, y), (X, Y)))
        assert found.shrinkage_ == expected.shrinkage_
        for name in ("correlations_", "x_weights_", "y_weights_"):
            a, b = getattr(found, name), getattr(expected, name)
            assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.fixture(params=["shards", "parquet", "h5py", "zarr"])
def hold(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """`hold(a)` is the matrix on a disk."""
    count = iter(range(100))

    def held(a: Any) -> Any:
        place = tmp_path / f"{next(count)}"
        if request.param == "shards":
            save(place.parent, place.name, a)
            return open_shards(place)
        if request.param == "parquet":
            pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            values = pa.FixedSizeListArray.from_arrays(pa.array(a.reshape(-1)), a.shape[1])
            pq.write_table(pa.table({"e": values}), place, row_group_size=1100)
            return open_parquet(place)
        if request.param == "h5py":
            h5py = pytest.importorskip("h5py")
            return h5py.File(place, "w").create_dataset("a", data=a, chunks=(300, a.shape[1]))
        zarr = pytest.importorskip("zarr")
        return zarr.create_array(store=str(place), data=a, chunks=(300, a.shape[1]))

    return held


def test_every_container_goes_through_every_door(hold: Any, views: Any, short_runs: None) -> None:
    X, Y = views
    x, y = hold(X), hold(Y)
    cca = CCA().fit(X, Y)
    found = CCA().fit(x, y)
    np.testing.assert_allclose(found.x_weights_, cca.x_weights_, atol=1e-10)
    np.testing.assert_allclose(found.transform(x), cca.transform(X), atol=1e-10)
    assert found.score(x, y) == pytest.approx(cca.score(X, Y), abs=1e-12)
    folds = zip(Moments.folds(cv=3, x=x, y=y), Moments.folds(cv=3, x=X, y=Y), strict=True)
    for a, b in folds:
        np.testing.assert_allclose(a.cov("x", "y"), b.cov("x", "y"), atol=1e-12)
    np.testing.assert_allclose(
        CCA(shrinkage="cv").partial_fit(x, y).x_weights_,
        CCA(shrinkage="cv").fit(X, Y).x_weights_,
        atol=1e-10,
    )
    gaussian = ConditionalGaussian(shrinkage=0.1).fit(x, y)
    expected = ConditionalGaussian(shrinkage=0.1).fit(X, Y).predict(X[:5])
    np.testing.assert_allclose(gaussian.predict(x[:5]), expected, atol=1e-10)
    search = MomentsSearchCV(CCA(2), {"shrinkage": [0.1, 0.5]}).fit(x, y)
    assert np.isfinite(search.best_score_)
    parts = list(map_rows(cca.transform, x, y))
    assert len(parts) == 4
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), cca.transform(y=Y), atol=1e-9)


def test_half_precision_stays_half_in_parquet(tmp_path: Path, views: Any) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    a = views[0].astype("f2")
    for name, kind in (("fixed", pa.list_(pa.float16(), 6)), ("free", pa.list_(pa.float16()))):
        table = pa.table({"k": np.arange(N), "e": pa.array(list(a), type=kind)})
        pq.write_table(table, tmp_path / name, row_group_size=1000)
        X = open_parquet(tmp_path / name, "e")
        assert (X.shape, X.dtype) == ((N, 6), np.float16)
        assert np.array_equal(X[5:3000], a[5:3000])


# --------------------------------------------------------------------------- indexing
INDICES: list[Any] = [
    slice(None),
    slice(1490, 2300),
    slice(10, 3000, 7),
    slice(None, None, -1),
    slice(-5, None),
    slice(5, 5),
    slice(20, 10),
    0,
    -1,
    1502,
    np.array([3999, 0, 0, -1, 2201, 2200, 1500]),
    [7, 3],
    [],
    np.arange(N) % 3 == 0,
    (slice(3, 9), slice(0, 2)),
    (slice(3, 9), [2, 0]),
    (4, 1),
    (slice(None), -1),
    ...,
    (..., 0),
    np.int64(17),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_rows_are_chosen_as_of_an_array(layout: Path, views: Any, index: Any) -> None:
    X = open_shards(layout).x
    np.testing.assert_array_equal(X[index], views[0][index])


@pytest.mark.parametrize("index", [N, -N - 1, [0, N], 0.5, "a", np.ones(3, bool), [[1]]])
def test_rows_that_are_not_there_raise(layout: Path, index: Any) -> None:
    with pytest.raises(IndexError):
        open_shards(layout).x[index]


def test_parquet_rows_are_chosen_as_of_an_array(tmp_path: Path, views: Any) -> None:
    pytest.importorskip("pyarrow")
    for i, rows in enumerate((slice(0, 2500), slice(2500, None))):
        frame = pd.DataFrame(views[0][rows], columns=list("abcdef"))
        frame.to_parquet(tmp_path / f"part_{i}.parquet", row_group_size=300)
    X = open_parquet(tmp_path)
    for index in (*INDICES, *INDICES[::-1]):
        np.testing.assert_array_equal(X[index], views[0][index])
    again = pickle.loads(pickle.dumps(X))
    np.testing.assert_array_equal(again[100:], views[0][100:])
    narrow = open_parquet(tmp_path, ["c", "a"])
    np.testing.assert_array_equal(narrow[2400:2600], views[0][2400:2600, [2, 0]])


def test_what_the_header_says_of_the_layout_is_followed(tmp_path: Path, views: Any) -> None:
    X = views[0]
    np.save(tmp_path / "a_0.npy", np.asfortranarray(X[:1000]))
    np.save(tmp_path / "a_1.npy", X[1000:].astype(">f8"))
    found = open_shards(tmp_path)
    assert found.dtype.isnative
    for index in (slice(None), slice(990, 1010), [1000, 3, 999]):
        np.testing.assert_array_equal(found[index], X[index])


def test_vectors_in_shards_are_one_column(tmp_path: Path, views: Any) -> None:
    X, Y = views
    save(tmp_path, "t", Y[:, 0])
    y = open_shards(tmp_path / "t")
    assert y.shape == (N,)
    found, expected = CCA().fit(X, y), CCA().fit(X, Y[:, 0])
    np.testing.assert_allclose(found.correlations_, expected.correlations_, atol=1e-12)
    assert next(map_rows(lambda run: run, y)).shape == (N,)


def test_shards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    save(tmp_path, "img_emb", np.arange(24.0)[:, None], (2,) * 12)
    np.testing.assert_array_equal(open_shards(tmp_path, y=None), np.arange(24.0)[:, None])
    backwards = sorted((tmp_path / "img_emb").iterdir(), reverse=True)
    assert open_shards(backwards)[0] == np.load(backwards[0])[0]


def test_a_matrix_on_disk_can_be_pickled_and_read_by_many_threads(layout: Path, views: Any) -> None:
    X = pickle.loads(pickle.dumps(open_shards(layout))).x
    assert (len(X), X.ndim, X.size, X.nbytes) == (N, 2, N * 6, N * 48)

    def read(start: int) -> bool:
        return np.array_equal(X[start : start + 900], views[0][start : start + 900])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(0, N, 37)))


def test_metadata_comes_in_the_order_of_the_rows(layout: Path) -> None:
    pytest.importorskip("pyarrow")
    (layout / "metadata").mkdir()
    frame = pd.DataFrame({"url": np.arange(N).astype(str), "width": np.arange(N)})
    starts = np.cumsum([0, *SIZES])
    for i, size in enumerate(SIZES):
        part = frame.iloc[starts[i] : starts[i] + size]
        part.to_parquet(layout / "metadata" / f"metadata_{i}.parquet")
    shards = open_shards(layout)
    pd.testing.assert_frame_equal(shards.metadata(), frame)
    assert list(shards.metadata(["width"])) == ["width"]
    frame[:3].to_parquet(layout / "metadata" / "metadata_1.parquet")
    with pytest.raises(ValueError, match=r"img_emb_1.npy has 700 rows, but .*_1.parquet has 3 "):
        shards.metadata()


# -------------------------------------------------------------------------- read-ahead
class Watched:
    """Rows that note which thread read what."""

    def __init__(self, a: Any, bad: int | None = None) -> None:
        self.a, self.bad, self.reads = a, bad, []
        self.shape, self.dtype, self.ndim = a.shape, a.dtype, a.ndim

    def __getitem__(self, at: Any) -> Any:
        self.reads.append((at.start, threading.current_thread().name))
        if at.start == self.bad:
            raise OSError("the disk is gone")
        return self.a[at]


def wait_for(condition: Any) -> None:
    for _ in range(500):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not happen within 5 seconds")


def test_one_run_is_read_ahead_and_no_more() -> None:
    source = Watched(np.arange(60.0).reshape(30, 2))
    for k, (start, _, _) in enumerate(streams.chunks([source], rows=5)):
        wait_for(lambda k=k: len(source.reads) == min(k + 2, 6))
        threading.Event().wait(0.02)
        assert (start, len(source.reads)) == (5 * k, min(k + 2, 6))
    assert all(name.startswith("cmstats-read") for _, name in source.reads)
    assert not readers()


def test_nothing_is_read_ahead_where_there_is_one_run_or_nothing_on_disk() -> None:
    source = Watched(np.ones((30, 2)))
    next(streams.chunks([source], rows=30))
    assert source.reads == [(0, threading.current_thread().name)]
    next(streams.chunks([np.ones((30, 2))], rows=5))
    assert not readers()


def test_an_error_of_reading_comes_out_where_the_run_was_due() -> None:
    runs = streams.chunks([Watched(np.ones((30, 2)), bad=10)], rows=5)
    assert [next(runs)[0], next(runs)[0]] == [0, 5]
    with pytest.raises(OSError, match="the disk is gone"):
        next(runs)
    assert not readers()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_thread_ends_when_the_pass_does(error: Any) -> None:
    def stop(_: Any) -> Any:
        raise error

    parts = map_rows(stop, Watched(np.ones((30, 2))), rows=5)
    with pytest.raises(error):
        next(parts)
    assert not readers()
    runs = streams.chunks([Watched(np.ones((30, 2)))], rows=5)
    next(runs)
    runs.close()  # type: ignore[attr-defined]
    assert not readers()


@pytest.mark.parametrize("mapped", [True, False])
def test_a_pass_holds_three_runs_at_most(tmp_path: Path, monkeypatch: Any, mapped: bool) -> None:
    monkeypatch.setattr(streams, "READ_BYTES", 1 << 20)
    np.save(tmp_path / "a_0.npy", np.ones((200_000, 16), "f4"))
    X = open_shards(tmp_path)
    X = np.load(X.paths[0], mmap_mode="r") if mapped else X
    tracemalloc.start()
    try:
        for _, (part,), _ in streams.chunks([X]):
            assert part.nbytes <= 1 << 20
            assert not isinstance(part, np.memmap)
        assert tracemalloc.get_traced_memory()[1] < 3.3 * (1 << 20)
    finally:
        tracemalloc.stop()


# ----------------------------------------------------------------- faults when opened
def shard(layout: Path, number: int, name: str = "img_emb") -> Path:
    return layout / name / f"{name}_{number}.npy"


def test_a_shard_that_is_cut_off_is_named(layout: Path) -> None:
    path = shard(layout, 1)
    os.truncate(path, 128 + 48 * 600 + 5)
    with pytest.raises(ValueError, match=r"img_emb_1.npy is cut off: .* 600 whole .* 700 .* 2100"):
        open_shards(layout)
    os.truncate(path, 60)
    with pytest.raises(ValueError, match=r"img_emb_1.npy is no whole .npy file \(60 bytes\)"):
        open_shards(layout)
    os.truncate(path, 0)
    with pytest.raises(ValueError, match=r"img_emb_1.npy is no whole .npy file \(0 bytes\)"):
        open_shards(layout)


def test_a_shard_with_more_than_its_header_says_is_named(layout: Path) -> None:
    with shard(layout, 1).open("ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"img_emb_1.npy holds 4 bytes more than the 700 rows"):
        open_shards(layout)


def test_a_missing_number_is_named(layout: Path) -> None:
    shard(layout, 4).unlink()
    with pytest.raises(ValueError, match=r"img_emb_4.npy is missing: .* 7 shards .* up to 7"):
        open_shards(layout)
    for number in (5, 6, 7):
        shard(layout, number).unlink()
    with pytest.raises(
        ValueError, match=r"text_emb_4.npy has no counterpart: .* 4 and 8 .*\(2201 and 4000 rows"
    ):
        open_shards(layout)
    shard(layout, 0).unlink()
    with pytest.raises(ValueError, match=r"img_emb_0.npy is missing"):
        open_shards(layout)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones((700, 5)), r"_1.npy has shape \(700, 5\), but .*_0.npy .*\(1500, 6\): row 1500"),
        (np.ones((700, 6), "f4"), r"_1.npy holds 700 rows of float32, but .*float64: from row 15"),
        (np.ones((700, 6)) * 1j, r"_1.npy holds complex128 values"),
        (np.full((700, 6), "a"), r"_1.npy holds <U1 values"),
        (np.ones((700, 6), object), r"_1.npy holds object values"),
        (np.ones((7, 10, 6)), r"_1.npy must hold a matrix, got .* \(7, 10, 6\)"),
    ],
)
def test_a_shard_of_another_kind_is_named(layout: Path, bad: Any, message: str) -> None:
    np.save(shard(layout, 1), bad)
    with pytest.raises(ValueError, match=message):
        open_shards(layout)


def test_counts_of_images_and_texts_that_differ_are_told(layout: Path, views: Any) -> None:
    np.save(shard(layout, 1, "text_emb"), views[1][:699])
    with pytest.raises(
        ValueError,
        match=r"img_emb_1.npy has 700 rows, but .*text_emb_1.npy has 699 \(4000 and 3999 rows in "
        r"all\): from row 2199",
    ):
        open_shards(layout)


def test_a_folder_that_is_not_clear_raises_one_sentence(layout: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        open_shards(layout / "no")
    with pytest.raises(ValueError, match=r"has no counterpart, as .*labels does not exist"):
        open_shards(layout, y="labels")
    with pytest.raises(ValueError, match="None"):
        open_shards(layout, x=None, y=None)
    (layout / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="neither img_emb nor text_emb"):
        open_shards(layout / "empty")
    with pytest.raises(ValueError, match=r"holds no \.npy files"):
        open_shards(layout, x="empty", y=None)
    for name, message in (("img_emb_00", "same number"), ("b_0", "b_.*img_emb_"), ("b", "number")):
        odd = layout / "img_emb" / f"{name}.npy"
        np.save(odd, np.ones((2, 6)))
        with pytest.raises(ValueError, match=message):
            open_shards(layout)
        odd.unlink()


# ------------------------------------------------------------------ faults when read
def test_nan_is_located_by_row_and_by_file(layout: Path, views: Any, short_runs: None) -> None:
    bad = views[0][2201:3500].copy()
    bad[1002, 3] = np.nan
    np.save(shard(layout, 4), bad)
    X, y = open_shards(layout)
    cca = CCA().fit(*views)
    where = r"1 NaN value, the first at row 3203, column 3.*row 3203 is row 1002 of .*img_emb_4.npy"
    calls = (cca.transform, lambda X: list(map_rows(cca.transform, X)), lambda X: CCA().fit(X, y))
    for call in calls:
        with pytest.raises(ValueError, match=where):
            call(X)
    assert not readers()


def test_an_error_in_a_run_notes_its_rows() -> None:
    def fail(part: Any) -> Any:
        if part[0, 0]:
            raise ValueError("no")
        return part

    with pytest.raises(ValueError, match="no") as raised:
        list(map_rows(fail, np.arange(10.0)[:, None], rows=4))
    assert raised.value.__notes__ == ["in the run of rows 4 to 7"]


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_shard_lost_during_a_pass_is_named(layout: Path, short_runs: None, how: str) -> None:
    X, _ = open_shards(layout)

    def lose(part: Any) -> Any:
        path = shard(layout, 4)
        if how == "removed":
            path.unlink(missing_ok=True)
        else:
            os.truncate(path, 128 + 48 * 1000)
        return part

    expected = {
        "removed": r"img_emb_4.npy is no longer there: .*it had 1299 rows",
        "cut": r"img_emb_4.npy was cut off .* row 1000, row 3201 of 4000 .*it had 1299 rows",
    }
    with pytest.raises(ValueError, match=expected[how]):
        list(map_rows(lose, X))
    assert not readers()


def test_parquet_that_does_not_fit_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")

    def save(name: str, **columns: Any) -> Path:
        pd.DataFrame(columns).to_parquet(tmp_path / name)
        return tmp_path / name

    good = save("good", e=[[1.0, 2.0], [3.0, 4.0]], k=[1, 2], t=["a", "b"])
    ragged = save("ragged", e=[[1.0, 2.0], [3.0]])
    holes = save("holes", e=[[1.0, 2.0], None])
    for paths, message in (
        ([good, ragged], r"row 1 of .*ragged \(row 3 in all\) holds 1 values, the first row 2"),
        ([good, holes], r"row 1 of .*holes \(row 3 in all\) has no vector"),
    ):
        X = open_parquet(paths, "e")
        with pytest.raises(ValueError, match=message):
            X[:]
    with pytest.raises(ValueError, match=r"'t' of .*good is .*string"):
        open_parquet(good, ["k", "t"])
    with pytest.raises(ValueError, match=r"no column 'z': its columns are e, k, t"):
        open_parquet(good, "z")
    with pytest.raises(ValueError, match=r"not clear: name some of k \(int64\), t"):
        open_parquet(save("text", k=[1], t=["a"]))
    with pytest.raises(ValueError, match=r"other types than .*: row 2 in all"):
        open_parquet([good, save("other", e=[[1, 2]])], "e")
    gaps = open_parquet(save("gaps", k=pd.array([1, None], dtype="Int64")))
    with pytest.raises(ValueError, match=r"row 1 of .*gaps .* misses a number in the column k"):
        gaps[:]
    assert np.isnan(open_parquet(save("nan", k=[1.0, None]))[1, 0])
    X = open_parquet(good, "e")
    os.truncate(good, 300)
    for call in (lambda: X[:], lambda: open_parquet(good, "e")):
        with pytest.raises(ValueError, match=r"good could not be read \(row 0 in all\)"):
            call()


# ---------------------------------------------------------------------------- writing
def test_what_is_written_is_what_is_read(tmp_path: Path, views: Any) -> None:
    for i, (rows, run) in enumerate([(1000, 300), (300, 1000), (4000, 4000), (5000, 1)]):
        parts = map_rows(lambda x, y: (x, y), *views, rows=run)
        X, y = write_shards(tmp_path / f"{i}", parts, rows=rows)
        assert X.counts == (rows,) * (N // rows) + ((N % rows,) if N % rows else ())
        again = open_shards(tmp_path / f"{i}")
        for a, b, c in zip((X, y), again, views, strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, c)
        np.testing.assert_array_equal(np.load(X.paths[0]), views[0][:rows])


def test_kinds_of_arrays_are_written_as_they_are(tmp_path: Path, views: Any) -> None:
    X = views[0].astype("f2")
    found = write_shards(tmp_path / "half", X, names="x", rows=999)
    assert isinstance(found, ShardedMatrix)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(write_shards(tmp_path / "copy", found, names="x"), X)
    labels = write_shards(tmp_path / "labels", [np.arange(5), np.arange(3)], names="y", rows=4)
    assert labels[:].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    three = write_shards(tmp_path / "three", [(X, X, X)], names=("a", "b", "c"))
    assert [a.shape for a in three] == [X.shape] * 3
    strict = pytest.importorskip("array_api_strict")
    foreign = strict.reshape(strict.arange(6.0), (3, 2))
    written = write_shards(tmp_path / "foreign", [foreign], names="a")
    np.testing.assert_array_equal(written, np.arange(6.0).reshape(3, 2))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([np.ones((2, 3)), np.ones((2, 4))], "part 1 has rows of 4 columns of float64, the first"),
        ([np.ones((2, 3)), np.ones((2, 3), "f4")], "part 1 has rows of 3 columns of float32"),
        ([(np.ones((2, 3)),)], "part 0 has 1 arrays for the names"),
        ([(np.ones((2, 3)), np.ones((3, 3)))], "the arrays of part 0 have shapes"),
        ([np.array(["a"])], "not a matrix of numbers"),
        ([], "no rows to write"),
    ],
)
def test_parts_that_do_not_fit_raise_and_leave_nothing(
    tmp_path: Path, parts: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_shards(tmp_path, iter(parts))
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_shards_are_replaced_only_when_asked(tmp_path: Path) -> None:
    write_shards(tmp_path, np.zeros((5, 2)), names="a", rows=1)
    with pytest.raises(FileExistsError, match=r"a_0.npy is there already, one of 5 shards"):
        write_shards(tmp_path, np.ones((5, 2)), names="a")
    assert not open_shards(tmp_path / "a")[:].any()
    write_shards(tmp_path, np.ones((5, 2)), names="a", rows=3, overwrite=True)
    np.testing.assert_array_equal(open_shards(tmp_path / "a"), np.ones((5, 2)))

    def fail(_: Any) -> Any:
        raise RuntimeError

    with pytest.raises(RuntimeError):  # before the first row: the old shards are kept
        write_shards(tmp_path, map_rows(fail, np.ones((5, 2))), names="a", overwrite=True)
    assert open_shards(tmp_path / "a").shape == (5, 2)


def files_of(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_a_limit_of_the_disk_leaves_whole_shards_and_says_so(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    parts = [np.ones((size, 1000), "f4") for size in (100, 400)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))  # a file holds 262 rows
    try:
        write_shards(tmp_path / "small", parts, names="out", rows=250)
        with pytest.raises(OSError, match="File too large") as raised:
            write_shards(tmp_path / "large", parts, names="out", rows=270)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "out_0.npy failed" in str(raised.value)
    assert "no shard (0 rows) of out" in str(raised.value)
    assert open_shards(tmp_path / "small" / "out").counts == (250, 250)
    assert files_of(tmp_path / "large") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("name", ["img_emb", "text_emb"])
def test_a_full_disk_leaves_whole_shards_and_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    beside = tmp_path / name / f".{name}_2.npy.{os.getpid()}.part"
    beside.symlink_to("/dev/full")
    parts = [(np.ones((10, 3)), np.ones((10, 2)))] * 4
    with pytest.raises(OSError, match="No space left") as raised:
        write_shards(tmp_path, parts, rows=10)
    assert raised.value.errno == 28
    assert isinstance(raised.value.__cause__, OSError)
    assert "img_emb_2.npy failed" in str(raised.value)
    assert "shards 0 to 1 (20 rows) of img_emb and text_emb" in str(raised.value)
    assert files_of(tmp_path) == [f"{n}_{i}.npy" for n in ("img_emb", "text_emb") for i in (0, 1)]
    assert open_shards(tmp_path).x.shape == (20, 3)


def test_a_folder_that_cannot_be_made_raises_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"failed .* no shard \(0 rows\)"):
        write_shards(tmp_path / "file" / "out", [np.ones((2, 2))], names="a")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_leaves_whole_shards_and_no_thread(tmp_path: Path, views: Any) -> None:
    save(tmp_path, "in", views[0])
    X = open_shards(tmp_path / "in")

    def endless(moment: int) -> Any:
        for k in range(200):
            if k == moment:
                threading.Timer(0.003 * moment, os.kill, (os.getpid(), signal.SIGINT)).start()
            yield from map_rows(lambda a: (a, a[:, :2]), X, rows=500)

    for moment in range(4):
        out = tmp_path / f"out{moment}"
        with pytest.raises(KeyboardInterrupt):
            write_shards(out, endless(moment), rows=700)
        wait_for(lambda: not readers())
        left = files_of(out) if out.exists() else []
        assert not [name for name in left if name.endswith(".part")]
        if left:
            images, texts = open_shards(out)
            assert images.shape[0] == texts.shape[0] == 700 * len(images.paths)


def test_sources_of_a_map_fit_together() -> None:
    with pytest.raises(ValueError, match=r"X has shape \(3, 1\) and y has shape \(2, 1\)"):
        map_rows(lambda x, y: x, np.ones((3, 1)), np.ones((2, 1)))
    with pytest.raises(TypeError, match="at least one"):
        map_rows(lambda: 1)
    with pytest.raises(ValueError, match="rows must be"):
        map_rows(lambda x: x, np.ones((3, 1)), rows=0)


@pytest.mark.dask
def test_a_dask_array_is_written_chunk_by_chunk(tmp_path: Path) -> None:
    da = pytest.importorskip("dask.array")
    a = np.random.default_rng(0).normal(size=(50, 3))
    chunked = da.from_array(a, chunks=(20, 2))
    keep = (np.arange(50) < 20) | (np.arange(50) > 44)
    np.testing.assert_array_equal(write_shards(tmp_path / "a", chunked, rows=15), a)
    filtered = chunked[da.from_array(keep, chunks=20)]
    np.testing.assert_array_equal(write_shards(tmp_path / "b", filtered), a[keep])
    with pytest.raises(ValueError, match="part 0 is of Dask arrays: pass one, or runs"):
        write_shards(tmp_path / "c", [(chunked, chunked)])
