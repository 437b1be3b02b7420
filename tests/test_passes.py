"""Passes over streams: checkpoints and going on from them, batches, folds, fits, retrieval."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmstats import (
    CCA,
    KernelCCA,
    LinearAutoencoder,
    Moments,
    MultitaskRegressor,
    MultiviewCCA,
    retrieval_report,
)
from cmstats.arrays import is_array
from cmstats.kernels.ranks import partner_ranks, top_k
from cmstats.metrics import search
from cmstats.moments import checkpoint as _checkpoint

pytestmark = pytest.mark.usefixtures("two_threads")

ROW_BYTES = 8 * 10


class Rows:
    """Rows behind shape, dtype, ndim and slices, at most `most` at once; `fail` at a row."""

    def __init__(self, a: Any, most: int = 1 << 40, fail: Any = None) -> None:
        self._a, self._most, self._fail = a, most, fail
        self.shape, self.dtype, self.ndim = a.shape, a.dtype, a.ndim
        self.first = a.shape[0]

    def __getitem__(self, at: slice) -> Any:
        assert isinstance(at, slice)
        self.first = min(self.first, at.start)
        if self._fail is not None and at.stop > self._fail[0]:
            raise self._fail[1]
        if at.stop - at.start > self._most:
            raise MemoryError(f"{at} asked for at once")
        return self._a[at]

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise MemoryError("read whole")

    def locate(self, row: int) -> str:
        return f"row {row % 1000} of part_{row // 1000}.npy"


@pytest.fixture
def views(rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(10_000, 6)) + 3
    return X, X[:, :4] + rng.normal(size=(10_000, 4))


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: Any) -> None:
    """States are saved every 2048 rows of the views here."""
    monkeypatch.setattr(_checkpoint, "SEGMENT_BYTES", 2048 * ROW_BYTES)


def fields(m: Moments) -> dict[str, Any]:
    return m.fields()


def assert_identical(found: Any, wanted: Any) -> None:
    pairs = zip(found, wanted, strict=True) if isinstance(found, list) else [(found, wanted)]
    for a, b in pairs:
        mine, theirs = fields(a), fields(b)
        assert mine.keys() == theirs.keys()
        for name in mine:
            np.testing.assert_array_equal(mine[name], theirs[name], strict=True)


def assert_close(found: Any, wanted: Any, tolerance: float = 1e-10) -> None:
    pairs = zip(found, wanted, strict=True) if isinstance(found, list) else [(found, wanted)]
    for a, b in pairs:
        assert a.n == b.n
        for x in a.names:
            np.testing.assert_allclose(a.mean(x), b.mean(x), rtol=tolerance, atol=tolerance)
            for y in a.names:
                if x == y == a.diagonal:
                    continue
                C, D = a.cov(x, y), b.cov(x, y)
                np.testing.assert_allclose(C, D, rtol=tolerance, atol=tolerance * abs(D).max())


def batches_of(X: Any, Y: Any, sizes: Any) -> Any:
    start, sizes = 0, iter(sizes)
    while start < X.shape[0]:
        stop = min(start + next(sizes), X.shape[0])
        yield X[start:stop, ...], Y[start:stop, ...]
        start = stop


def breaking(X: Any, Y: Any) -> Any:
    yield from batches_of(X[:7000, ...], Y[:7000, ...], iter([333] * 99))
    raise RuntimeError("lost")


def missing_some(X: Any, rng: np.random.Generator) -> Any:
    X = X.copy()
    X[rng.random(len(X)) < 0.2, 2] = np.nan
    X[rng.random(len(X)) < 0.2, 4:] = np.nan
    return X


PASSES: dict[str, Any] = {
    "scatter": lambda X, Y, **how: Moments.from_data(x=X, y=Y, **how),
    "root": lambda X, Y, **how: Moments.from_data(x=X, y=Y, form="root", **how),
    "weights": lambda X, Y, **how: Moments.from_data(
        x=X, y=Y, sample_weight=np.arange(len(Y)) % 3, **how
    ),
    "folds": lambda X, Y, **how: Moments.folds(x=X, y=Y, cv=3, **how),
    "targets": lambda X, Y, **how: Moments.folds(x=X, y=Y, cv=3, diagonal="y", **how),
    "batches": lambda X, Y, **how: Moments.from_batches(
        ((X[i : i + 700], Y[i : i + 700]) for i in range(0, len(Y), 700)), rows=1024, **how
    ),
    "batch folds": lambda X, Y, **how: Moments.folds_from_batches(
        ((X[i : i + 700], Y[i : i + 700]) for i in range(0, len(Y), 700)),
        rows=1024, cv=3, form="root", **how,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------- checkpoints
@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize("error", [OSError(5, "gone"), KeyboardInterrupt()])
def test_a_pass_that_broke_off_goes_on_to_the_identical_result(
    name: str, error: BaseException, views: Any, tmp_path: Path
) -> None:
    X, Y = views
    run, path = PASSES[name], tmp_path / "state.npz"
    whole = run(X, Y, checkpoint=path)
    assert not path.exists()
    with pytest.raises(type(error)) as caught:
        run(Rows(X, fail=(7000, error)), Y, checkpoint=path)
    assert "moments of the first 6144 rows are saved in" in caught.value.__notes__[-1]
    assert Moments.load(path).rows == (4096 if name == "weights" else 6144)  # of positive weight
    again = Rows(X)
    assert_identical(run(again, Y, checkpoint=path), whole)
    assert not path.exists()
    assert not list(tmp_path.iterdir())
    assert_close(whole, run(X, Y))
    if "batch" not in name:
        short = Rows(X, fail=(7000, error))
        with pytest.raises(type(error)):
            run(short, Y, checkpoint=path)
        again = Rows(X[:, :])
        run(again, Y, checkpoint=path)
        assert again.first in (0, 6144)  # the first rows tell whose data these are


def test_tables_of_patterns_are_saved_too(
    views: Any, rng: np.random.Generator, tmp_path: Path
) -> None:
    X, Y = views
    X, path = missing_some(X, rng), tmp_path / "state.npz"
    whole = Moments.folds(x=X, y=Y, cv=2, missing="em", checkpoint=path)
    lazy = Rows(X, fail=(7000, OSError("gone")))
    with pytest.raises(OSError, match="gone"):
        Moments.folds(x=lazy, y=Y, cv=2, missing="em", checkpoint=path)
    assert Moments.load(path).incomplete
    found = Moments.folds(x=Rows(X), y=Y, cv=2, missing="em", checkpoint=path)
    # The centre of rows in memory is taken from all of them, that of lazy ones from their first
    # run: one segment here is one run, so both are the same rows.
    assert_close(found, whole, 1e-8)
    again = Moments.folds(x=X, y=Y, cv=2, missing="em", checkpoint=path)
    assert_identical(again, whole)


def test_patterns_add_up_in_one_order_whatever_the_threads(
    views: Any, rng: np.random.Generator
) -> None:
    X, Y = views
    X = missing_some(X, rng)
    first = Moments.from_data(x=X, y=Y, missing="em")
    for _ in range(5):
        assert_identical(Moments.from_data(x=X, y=Y, missing="em"), first)


SCRIPT = """
import os, signal, sys, time
import numpy as np
from cmstats import Moments
from cmstats.moments import checkpoint as _checkpoint
_checkpoint.SEGMENT_BYTES = 2048 * 80
X = np.load(sys.argv[1], mmap_mode="r")
class Slow:
    shape, dtype, ndim = X.shape, X.dtype, 2
    def __getitem__(self, at):
        if at.start >= 6000:
            print("reading", flush=True)
            while not os.path.exists(sys.argv[2] + ".go"):
                time.sleep(0.02)
        return np.asarray(X[at])
Moments.from_data(x=Slow(), checkpoint=sys.argv[2], rows=1024)
"""


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_killed_process_leaves_a_state_to_go_on_from(views: Any, tmp_path: Path) -> None:
    Z = np.concatenate(views, axis=1)
    np.save(tmp_path / "rows.npy", Z)
    wanted = Moments.from_data(x=Rows(Z), checkpoint=tmp_path / "state.npz", rows=1024)
    signals = [signal.SIGKILL, signal.SIGINT]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, tmp_path / "rows.npy", tmp_path / f"{number}.npz"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in signals
    ]
    for process, number in zip(processes, signals, strict=True):
        path = tmp_path / f"{number}.npz"
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        deadline = time.monotonic() + 20
        while not path.exists() or Moments.load(path).rows < 6144:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        time.sleep(0.1)
        Path(f"{path}.go").touch()
        _, told = process.communicate(timeout=30)
        assert process.returncode == -number
        assert ("first 6144 rows are saved" in told) == (number == signal.SIGINT)
        found = Moments.from_data(x=Rows(Z), checkpoint=path, rows=1024)
        assert_identical(found, wanted)


def test_nan_is_told_by_row_and_file_and_its_repair_goes_on(views: Any, tmp_path: Path) -> None:
    X, Y = views
    path = tmp_path / "state.npz"
    whole = Moments.from_data(x=Rows(X), y=Y, checkpoint=path)
    bad = X.copy()
    bad[7005, 3] = np.nan
    message = (
        r"x \(rows 6144 to 8191\) has 1 NaN value, the first at row 7005, column 3: .*row 5 of "
        r"part_7.npy; the moments of the first 6144 rows are saved in .*state.npz"
    )
    with pytest.raises(ValueError, match=message):
        Moments.from_data(x=Rows(bad), y=Y, checkpoint=path)
    partial = Moments.load(path)
    assert_close(partial, Moments.from_data(x=X[:6144], y=Y[:6144]))
    assert_identical(Moments.from_data(x=Rows(X), y=Y, checkpoint=path), whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((10_000, 5))}, r"blocks x: \(10000, 6\) float64.*there, x: \(10000, 5\)"),
        ({"form": "root"}, "form scatter there, root here"),
        ({"missing": "em"}, "missing error there, em here"),
        ({"sample_weight": np.ones(10_000)}, "the weights"),
        ({"x": np.ones((10_000, 6))}, "the first rows"),
    ],
)
def test_a_checkpoint_of_another_pass_raises_one_sentence(
    change: dict[str, Any], message: str, views: Any, tmp_path: Path
) -> None:
    X, Y = views
    path = tmp_path / "state.npz"
    with pytest.raises(OSError, match="gone"):
        Moments.from_data(x=Rows(X, fail=(7000, OSError("gone"))), y=Y, checkpoint=path)
    with pytest.raises(ValueError, match=message):
        Moments.from_data(**{"x": X, "y": Y, "checkpoint": path, **change})
    with pytest.raises(ValueError, match="the folds"):
        Moments.folds(x=X, y=Y, checkpoint=path)
    assert Moments.load(path).rows == 6144


def test_a_file_that_is_no_checkpoint_is_left_alone(views: Any, tmp_path: Path) -> None:
    X, Y = views
    m = Moments.from_data(x=X, y=Y)
    m.save(tmp_path / "moments.npz")
    with pytest.raises(ValueError, match="is no checkpoint of a pass"):
        Moments.from_data(x=X, y=Y, checkpoint=tmp_path / "moments.npz")
    assert Moments.load(tmp_path / "moments.npz").n == m.n


def test_what_cannot_be_written_leaves_the_state_before(
    views: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    X, Y = views
    path, calls = tmp_path / "state.npz", []
    real = np.savez

    def full(*args: Any, **kwargs: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(*args, **kwargs)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space") as caught:
        Moments.from_data(x=X, y=Y, checkpoint=path)
    assert "first 4096 rows" in caught.value.__notes__[-1]
    monkeypatch.setattr(np, "savez", real)
    assert Moments.load(path).rows == 4096
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_how_a_stream_is_parted_makes_no_difference(views: Any, tmp_path: Path) -> None:
    X, Y = views
    path = tmp_path / "state.npz"

    def run(sizes: Any) -> Moments:
        return Moments.from_batches(batches_of(X, Y, sizes), checkpoint=path, rows=1000)

    whole = run([len(X)])
    assert_identical(run(iter([1] * 50 + [3000] * 9)), whole)
    with pytest.raises(RuntimeError, match="lost"):
        Moments.from_batches(breaking(X, Y), checkpoint=path, rows=1000)
    assert Moments.load(path).rows == 6000
    with pytest.raises(ValueError, match=r"ended after 3000 rows, but the checkpoint .* 6000"):
        Moments.from_batches(batches_of(X[:3000], Y[:3000], [3000]), checkpoint=path, rows=1000)
    assert_identical(run(iter([17] * 999)), whole)


def test_rows_of_another_library_go_on_where_they_are(views: Any, tmp_path: Path) -> None:
    xp = pytest.importorskip("array_api_strict")
    X, Y = (xp.asarray(a) for a in views)
    path = tmp_path / "state.npz"
    whole = Moments.from_batches(batches_of(X, Y, iter([900] * 99)), checkpoint=path, rows=1024)
    with pytest.raises(RuntimeError, match="lost"):
        Moments.from_batches(breaking(X, Y), checkpoint=path, rows=1024)
    found = Moments.from_batches(batches_of(X, Y, iter([900] * 99)), checkpoint=path, rows=1024)
    assert is_array(found.mean("x"))
    assert not isinstance(found.mean("x"), np.ndarray)
    assert_identical(found, whole)


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ({"rows": 0}, ValueError, "rows must be a whole number of at least 1"),
        ({"rows": 2.5}, ValueError, "rows must be"),
        ({"rows": True}, ValueError, "rows must be"),
        ({"progress": "yes"}, ValueError, "progress must be True or False"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be the path of a file"),
        ({"checkpoint": "."}, ValueError, "is a folder"),
        ({"checkpoint": "nowhere/state.npz"}, ValueError, "there is no folder nowhere"),
        ({"form": "roots"}, ValueError, "form must be"),
        ({"missing": "drop"}, ValueError, "missing must be"),
    ],
)
def test_what_a_pass_cannot_run_with_raises_one_sentence(
    how: dict[str, Any], error: Any, message: str, views: Any
) -> None:
    X, Y = views
    for run in (
        lambda: Moments.from_data(x=X, y=Y, **how),
        lambda: Moments.folds(x=X, y=Y, **how),
        lambda: Moments.from_batches([(X, Y)], **how),
        lambda: Moments.folds_from_batches([(X, Y)], **how),
    ):
        with pytest.raises(error, match=message):
            run()


def test_rows_in_a_run_and_a_bar_change_nothing(views: Any, capsys: Any) -> None:
    X, Y = views
    wanted = Moments.from_data(x=X, y=Y)
    assert_close(Moments.from_data(x=X, y=Y, rows=77, progress=True), wanted)
    assert "10.0k" in capsys.readouterr().err
    assert_close(Moments.from_data(x=Rows(X, most=100), y=Y, rows=100), wanted)
    Moments.from_batches([(X, Y)], progress=True)
    assert "10.0k" in capsys.readouterr().err
    Moments.from_data(x=X, y=Y)
    assert not capsys.readouterr().err


# ------------------------------------------------------------------------------ batches
@pytest.mark.parametrize("form", ["scatter", "root"])
@pytest.mark.parametrize("missing", ["error", "em"])
@pytest.mark.parametrize("sizes", ["uneven", "single", "one"])
def test_folds_of_batches_equal_folds_of_rows(
    form: Any, missing: Any, sizes: str, views: Any, rng: np.random.Generator
) -> None:
    if form == "root" and missing == "em":
        pytest.skip("missing='em' has one form")
    X, Y = (a[:400] for a in views)
    X = missing_some(X, rng) if missing == "em" else X
    parts = {"uneven": iter([7, 1, 150, 3, 500]), "single": iter([1] * 400), "one": iter([400])}
    found = Moments.folds_from_batches(
        batches_of(X, Y, parts[sizes]), cv=3, form=form, missing=missing, rows=64
    )
    wanted = Moments.folds(x=X, y=Y, cv=3, form=form, missing=missing)
    assert_close(found, wanted, 1e-8 if missing == "em" else 1e-10)


def test_batches_in_single_precision_equal_one_pass(views: Any, rng: np.random.Generator) -> None:
    X, Y = (a.astype(np.float32) for a in views)
    order = rng.permutation(len(X))
    found = Moments.from_batches(batches_of(X[order], Y[order], iter([1] * 30 + [977] * 99)))
    assert_close(found, Moments.from_data(x=X, y=Y), 2e-6)


def test_nan_in_a_batch_is_told_by_batch_and_row(views: Any) -> None:
    X, Y = views
    bad = Y.copy()
    bad[702, 1] = np.inf
    message = "y has 1 infinite value, the first at row 2 of batch 7, column 1"
    for make in (Moments.from_batches, Moments.folds_from_batches):
        with pytest.raises(ValueError, match=message):
            make(batches_of(X, bad, iter([100] * 100)))


@pytest.mark.parametrize("cv", [1, 2.5, "5", True, [([0], [1])]])
def test_folds_of_batches_need_an_int(cv: Any, views: Any) -> None:
    with pytest.raises(ValueError, match="so cv must be an int of at least 2"):
        Moments.folds_from_batches([views], cv=cv)


def test_fewer_rows_than_folds_and_no_rows_raise(views: Any) -> None:
    X, Y = views
    with pytest.raises(ValueError, match="cv=5 folds of 3 rows"):
        Moments.folds_from_batches([(X[:3], Y[:3])])
    with pytest.raises(ValueError, match="holds no rows"):
        Moments.folds_from_batches([])


# ----------------------------------------------------------------------------------- fit
def pairs(X: Any, Y: Any) -> list[tuple[Any, Any]]:
    return list(batches_of(X, Y, iter([300, 1, 2, 999] * 99)))


@pytest.mark.parametrize(
    "est",
    [
        CCA(),
        CCA(shrinkage="cv", cv=3),
        CCA(solver="svd"),
        CCA(shrinkage="auto", scale=True),
        MultitaskRegressor(),
        MultitaskRegressor(alpha=1.0),
        LinearAutoencoder(2, target="joint"),
    ],
    ids=str,
)
def test_a_fit_to_batches_equals_one_to_rows(est: Any, views: Any) -> None:
    X, Y = (a[:2000] for a in views)
    wanted = np.asarray(est.fit(X, Y).transform(X[:9]) if hasattr(est, "transform") else
                        est.fit(X, Y).predict(X[:9]))  # fmt: skip
    for source in (pairs(X, Y), iter(pairs(X, Y)), ({"x": x, "y": y} for x, y in pairs(X, Y))):
        fitted = est.fit(source)
        found = fitted.transform(X[:9]) if hasattr(est, "transform") else fitted.predict(X[:9])
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-8)
        assert fitted.n_features_in_ == 6
        assert fitted.n_samples_ == 2000


def test_other_estimators_fit_to_batches(views: Any) -> None:
    X, Y = (a[:2000] for a in views)
    wanted = LinearAutoencoder(2).fit(X).transform(X)
    for source in (pairs(X, Y), (x for x, _ in pairs(X, Y)), ({"x": x} for x, _ in pairs(X, Y))):
        np.testing.assert_allclose(LinearAutoencoder(2).fit(source).transform(X), wanted, 1e-8)
    three = MultiviewCCA(1, shrinkage=0.1).fit([X, Y, X[:, :2] ** 2])
    batches = ([x, y, x[:, :2] ** 2] for x, y in pairs(X, Y))
    again = MultiviewCCA(1, shrinkage=0.1).fit(batches)
    np.testing.assert_allclose(again.eigenvalues_, three.eigenvalues_, 1e-9)
    holes = Y.copy()
    holes[::3, 1] = np.nan
    wanted = MultitaskRegressor(cv=3).fit(X, holes).coef_
    np.testing.assert_allclose(MultitaskRegressor(cv=3).fit(pairs(X, holes)).coef_, wanted, 1e-8)
    with pytest.raises(ValueError, match=r"reads the rows twice.*partial_fit on each batch"):
        KernelCCA(2).fit(iter(pairs(X, Y)))


def test_one_dimensional_targets_and_names_are_remembered(views: Any) -> None:
    pd = pytest.importorskip("pandas")
    X, Y = (a[:200] for a in views)
    frame = pd.DataFrame(X, columns=list("abcdef"))
    batches = [(frame[i : i + 50], Y[i : i + 50, 0]) for i in range(0, 200, 50)]
    fitted = MultitaskRegressor(alpha=1.0).fit(iter(batches))
    assert fitted.predict(frame).shape == (200,)
    assert list(fitted.feature_names_in_) == list("abcdef")
    batches[2] = (batches[2][0][list("bacdef")], batches[2][1])
    with pytest.raises(ValueError, match="batch 2: The feature names"):
        CCA().fit(iter(batches))


def test_ill_conditioned_batches_are_read_twice_or_warned_of(rng: np.random.Generator) -> None:
    X = rng.normal(size=(600, 3))
    X = np.concatenate([X, X[:, :1] + 1e-5 * rng.normal(size=(600, 1))], axis=1)
    Y = X + rng.normal(size=(600, 4))
    source = pairs(X, Y)
    wanted = CCA(2).fit(X, Y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert wanted.moments_.form == CCA(2).fit(source).moments_.form == "root"
        assert CCA(2, solver="svd").fit(iter(source)).moments_.form == "root"
    with pytest.warns(UserWarning, match="an iterator cannot be read again.*solver='svd'"):
        assert CCA(2).fit(iter(source)).moments_.form == "scatter"


def test_what_is_no_stream_of_pairs_raises_one_sentence(views: Any) -> None:
    X, Y = (a[:100] for a in views)
    for X_alone in (X, X.tolist()):
        with pytest.raises(ValueError, match="requires y to be passed"):
            CCA().fit(X_alone)
    with pytest.raises(ValueError, match="batch 1 is no pair of views"):
        CCA().fit(iter([(X, Y), (X, Y, X)]))
    with pytest.raises(ValueError, match=r"batch 1: .*inconsistent numbers of samples"):
        CCA().fit(iter([(X, Y), (X, Y[:-1])]))
    with pytest.raises(ValueError, match="batch 1: X has 5 features"):
        CCA().fit(iter([(X, Y), (X[:, :5], Y)]))
    with pytest.raises(ValueError, match="sample_weight goes with arrays"):
        CCA().fit(iter([(X, Y)]), sample_weight=np.ones(100))
    with pytest.raises(ValueError, match="dealt to folds by number, so cv must be an int"):
        CCA(shrinkage="cv", cv=[(np.arange(50), np.arange(50, 100))]).fit(iter([(X, Y)]))
    with pytest.raises(ValueError, match="holds no rows"):
        CCA().fit(iter([]))


def test_partial_fit_with_folds_reads_run_by_run(views: Any, monkeypatch: Any) -> None:
    X, Y = views
    monkeypatch.setattr("cmstats.rows.chunks.CHUNK_BYTES", 1)
    est = CCA(2, shrinkage="cv", cv=2)
    est.partial_fit(Rows(X[:3001], 1024), Rows(Y[:3001], 1024))
    est.partial_fit(Rows(X[3001:], 1024), Rows(Y[3001:], 1024))
    assert_close(est.moments_, Moments.folds(x=X, y=Y, cv=2))


# ------------------------------------------------------------------------------ retrieval
@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_retrieval_reads_tile_by_tile(
    dtype: Any, rng: np.random.Generator, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("cmstats.kernels.rank_problem.BLOCK_SCORES", 8 * 1024)
    monkeypatch.setattr("cmstats.kernels._cpu.ranks.BLOCK_SCORES", 8 * 1024)
    U = rng.normal(size=(1300, 8)).astype(dtype)
    V = (U + rng.normal(size=U.shape)).astype(dtype)
    V[10:20] = V[9]  # ties
    np.save(tmp_path / "U.npy", U)
    labels, ids = rng.integers(0, 9, 1300), rng.permutation(1300) // 2
    held: Any = [
        (np.load(tmp_path / "U.npy", mmap_mode="r"), Rows(V, 1024)),
        (Rows(U, 1024), Rows(V, 1024)),
    ]
    for lazy in held:
        assert retrieval_report(*lazy, labels=labels).equals(retrieval_report(U, V, labels=labels))
        np.testing.assert_array_equal(partner_ranks(*lazy), partner_ranks(U, V))
        for found, wanted in zip(top_k(*lazy, 5), top_k(U, V, 5), strict=True):
            np.testing.assert_array_equal(found, wanted, strict=True)
        for found, wanted in zip(search(U[3], lazy[1], 5), search(U[3], V, 5), strict=True):
            np.testing.assert_array_equal(found, wanted, strict=True)
    shuffled = {"x_ids": ids, "y_ids": ids[::-1].copy()}
    wanted = retrieval_report(U, V, **shuffled)
    assert retrieval_report(*held[1], **shuffled).equals(wanted)


def test_nan_in_vectors_on_a_disk_is_located(rng: np.random.Generator) -> None:
    U = rng.normal(size=(2500, 4))
    bad = U.copy()
    bad[2007, 1] = np.nan
    with pytest.raises(ValueError, match=r"V has 1 NaN.*row 2007, column 1.*row 7 of part_2.npy"):
        retrieval_report(U, Rows(bad))
    with pytest.raises(ValueError, match="the same number of columns"):
        retrieval_report(U, Rows(U[:, :3]))
    with pytest.raises(ValueError, match="not real numbers"):
        retrieval_report(U, Rows(U.astype(complex)))
