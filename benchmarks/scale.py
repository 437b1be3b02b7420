"""Data larger than memory: shards against arrays in memory, peak memory, growth, a cluster."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._measure import RESULTS, Rows, peak_memory, ratio, seconds
from cmstats import CCA, Moments, MomentsSearchCV, open_shards

SHRINKAGES = {"shrinkage": np.geomspace(1e-4, 0.5, 10).tolist()}


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    n, shard, *widths = (4000, 400, 64, 48) if quick else (2_000_000, 100_000, 512, 384)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), n, shard, widths)
        yield _fit(folder, n, repeats=1 if quick else 3)
        yield _growth(folder, [n // 20, n // 8, n // 4, n // 2, n], quick=quick)
        yield _options(folder, min(n, 500_000), repeats=1 if quick else 3)
        yield _cluster(folder, min(n, 200_000))
    yield _model(*(500, 256) if quick else (100_000, 1536))


def write(folder: Path, n: int, rows: int, widths: Sequence[int]) -> None:
    """Paired float16 shards in the clip-retrieval layout, with 32 shared directions."""
    rng = np.random.default_rng(0)
    for name, width in zip(("img_emb", "text_emb"), widths, strict=True):
        (folder / name).mkdir()
        loadings = rng.standard_normal((32, width), dtype=np.float32) * np.float32(0.3)
        # Reuse one block of noise, rolled for each shard: 1.8e9 random numbers take a minute.
        noise = rng.standard_normal((rows, width), dtype=np.float32)
        for number, start in enumerate(range(0, n, rows)):
            shared = np.random.default_rng(number + 1)
            z = shared.standard_normal((min(rows, n - start), 32), dtype=np.float32)
            part = z @ loadings + np.roll(noise[: len(z)], 7919 * number, axis=number % 2)
            np.save(folder / name / f"{name}_{number}.npy", part.astype(np.float16))


class _Head:
    """The first rows of a lazy matrix, as a lazy matrix."""

    def __init__(self, source: Any, n: int) -> None:
        self.source, self.dtype, self.ndim = source, source.dtype, 2
        self.shape = (n, source.shape[1])

    def __getitem__(self, at: Any) -> Any:
        rows, *columns = at if isinstance(at, tuple) else (at,)
        start, stop, step = rows.indices(self.shape[0])
        return self.source[(slice(start, stop, step), *columns)]


def _fit(folder: str, n: int, repeats: int) -> dict[str, Any]:
    """One fit and one search, from shards and from memory."""
    X, Y = open_shards(folder)
    held = np.asarray(X), np.asarray(Y)
    model, search = CCA(10, shrinkage=0.01), MomentsSearchCV(CCA(10), SHRINKAGES, cv=5)
    name = f"{n} x ({X.shape[1]}, {Y.shape[1]}) float16"
    row = ratio(lambda: model.fit(X, Y), lambda: model.fit(*held), repeats=repeats)
    difference = _difference(Moments.from_data(x=X, y=Y), Moments.from_data(x=held[0], y=held[1]))
    out: dict[str, Any] = {
        f"CCA, shards / memory, {name}": row
        | {
            "rows_per_second": n / row["seconds"],
            "share_of_the_rate_in_memory": 1 / row["ratio"],
            "largest_relative_difference": difference,
            "note": "the same fit; shards in the page cache; bar: 0.8 of the rate",
        }
    }
    row = ratio(lambda: search.fit(X, Y), lambda: model.fit(X, Y), repeats=repeats)
    row["note"] = "10 shrinkages x 5 folds against one fit, both from shards; bar 1.8"
    out[f"search / one fit, {name}"] = row
    held = ()  # free the memory for the next process
    out[f"CCA from shards, memory, {name}"] = peak_memory(PEAK, folder) | {
        "note": "a process of its own, from a cold page cache where the system lets it be emptied; "
        "bar 1024 MiB peak"
    }
    return out


def _difference(a: Moments, b: Moments) -> float:
    """The largest difference of the second moments, relative to the largest variance."""
    pairs = [(one, other) for one in a.names for other in a.names]
    largest = max(float(b.variance(name).max()) for name in b.names)
    return max(float(np.abs(a.cov(*pair) - b.cov(*pair)).max()) for pair in pairs) / largest


PEAK = """
import os
from cmstats import CCA, open_shards
from cmstats.datasets import load_linnerud
men = load_linnerud()
CCA(1).fit(men.X, men.y)
folder = pathlib.Path(sys.argv[1])
for path in folder.rglob("*.npy"):
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
before = resident()
begin = time.perf_counter()
X, Y = open_shards(folder)
CCA(10, shrinkage=0.01).fit(X, Y)
print(json.dumps({
    "seconds": time.perf_counter() - begin, "peak_mib": peak(), "extra_mib": peak() - before,
    "data_mib": sum(path.stat().st_size for path in folder.rglob("*.npy")) / 2**20,
}))
"""


def _growth(folder: str, sizes: list[int], *, quick: bool) -> dict[str, Any]:
    """Seconds over n, and the exponent of the fitted power."""
    X, Y = open_shards(folder)
    model = CCA(10, shrinkage=0.01)
    model.fit(X[:2000], Y[:2000])
    spent = [
        min(seconds(lambda: model.fit(_Head(X, n), _Head(Y, n))) for _ in range(2))  # noqa: B023
        for n in sizes
    ]
    exponent, _ = np.polyfit(np.log(sizes), np.log(spent), 1)
    # Separate the d x d algebra, which does not depend on n, from the cost of a row.
    per_row, fixed = np.polyfit(sizes, spent, 1)
    if not quick:
        _figure(sizes, spent, exponent)
    row: dict[str, Any] = {f"seconds_at_{n}": s for n, s in zip(sizes, spent, strict=True)}
    row |= {"exponent": exponent, "seconds_a_million_rows": per_row * 1e6, "fixed_seconds": fixed}
    row["note"] = "CCA from shards; the exponent of seconds = a n^b, 1 is linear"
    return {f"growth, {X.shape[1]} + {Y.shape[1]} columns of float16": row}


def _figure(sizes: list[int], spent: list[float], exponent: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(sizes, spent, "o-", color="#0072B2", label="CCA from float16 shards")
    linear = [spent[-1] * n / sizes[-1] for n in sizes]
    axes.loglog(sizes, linear, "--", color="0.4", label="linear in n")
    axes.set(xlabel="rows", ylabel="seconds", title=f"seconds ~ n^{exponent:.2f}")
    axes.legend()
    figure.savefig(RESULTS / "scale.png", dpi=100)


def _options(folder: str, n: int, repeats: int) -> dict[str, Any]:
    """The cost of a checkpoint."""
    X, Y = (_Head(a, n) for a in open_shards(folder))
    with tempfile.TemporaryDirectory() as other:
        path = os.path.join(other, "pass.npz")
        row: dict[str, Any] = ratio(
            lambda: Moments.from_data(x=X, y=Y, checkpoint=path),
            lambda: Moments.from_data(x=X, y=Y),
            repeats=repeats,
        )
    row["note"] = "the same pass, that can be resumed"
    return {f"checkpoints / none, {n} rows": row}


def _cluster(folder: str, n: int) -> dict[str, Any]:
    """Two worker processes against one process on the same shards."""
    try:
        import dask.array as da
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        return {"not run: dask.distributed": {"note": str(error)}}
    X, Y = (_Head(a, n) for a in open_shards(folder))
    here = seconds(lambda: Moments.from_data(x=X, y=Y))
    single = Moments.from_data(x=X, y=Y)
    rows = max(n // 20, 1000)
    dX, dY = (da.from_array(a, chunks=(rows, -1), name=False) for a in (X, Y))
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster),
    ):
        Moments.from_data(x=dX[: 2 * rows], y=dY[: 2 * rows])  # warm-up: the workers import
        spent = seconds(lambda: Moments.from_data(x=dX, y=dY))
        merged = Moments.from_data(x=dX, y=dY)
    return {
        f"dask.distributed, 2 processes, {n} rows in {-(-n // rows)} chunks": {
            "seconds": spent,
            "seconds_of_one_process": here,
            "largest_relative_difference": _difference(merged, single),
            "bytes_of_a_task_result": 8 * (X.shape[1] + Y.shape[1]) ** 2,
            "note": "one process uses both cores already: what differs is the scheduler's cost",
        }
    }


def _model(rows: int, d: int, *, n: float = 1e9, workers: int = 100) -> dict[str, Any]:
    """A billion rows on a hundred workers, from the measured cost of a row and of a merge."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((rows, d), dtype=np.float32).astype(np.float16)
    part = Moments.from_data(x=block)
    # One BLAS thread and one accumulator: a worker with one core.
    compute = peak_memory(ONE_CORE, str(rows), str(d))["seconds"] / rows
    merge = min(seconds(lambda: part + part) for _ in range(5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "block.npy"
        np.save(path, block)
        read = min(seconds(lambda: np.fromfile(path, dtype=np.uint8)) for _ in range(3)) / rows
    share = n / workers
    levels = int(np.ceil(np.log(workers) / np.log(8)))
    return {
        f"model: {n:.0e} rows x {d} float16 on {workers} workers of one core": {
            "gigabytes_a_worker": share * d * 2 / 1e9,
            "teraflops_a_worker": share * d * d * 2 / 1e12,
            "compute_seconds_a_row": compute,
            "read_seconds_a_row": read,
            "merge_seconds": merge,
            "megabytes_of_a_merge": 8e-6 * d * d,
            "minutes": (share * max(compute, read) + levels * 8 * merge) / 60,
            "note": "not run: rows a worker x the larger of computing and reading (read ahead), "
            "and a tree of merges of eight; reading is from the page cache here, a network at "
            "1 GB/s takes 3.1e-6 s a row",
        }
    }


ONE_CORE = """
import os
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
import numpy as np
from cmstats import Moments
rows, d = int(sys.argv[1]), int(sys.argv[2])
block = np.random.default_rng(0).standard_normal((rows, d), dtype=np.float32).astype(np.float16)
Moments.from_data(x=block[:2000])
begin = time.perf_counter()
Moments.from_data(x=block)
print(json.dumps({"seconds": time.perf_counter() - begin}))
"""
