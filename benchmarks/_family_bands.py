"""Banded ridge beside himalaya, over the number of rows, and on real targets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import PredefinedSplit

from benchmarks._measure import Rows, peak_memory, seconds
from benchmarks.multitask import emoji_colours
from cmstats import MultitaskRegressor

WIDTHS = (64, 64)


def banded(quick: bool) -> Iterator[Rows]:
    """The same candidates as himalaya; memory of rows on a disk; colours of emoji."""
    yield from _beside_himalaya(400 if quick else 20_000, candidates=2, alphas=2 if quick else 4)
    yield from _over_rows((4000, 5000) if quick else (200_000, 400_000, 800_000))
    yield from _emoji(2 if quick else 10, quick)


def targets(n: int, q: int = 32, seed: int = 0) -> tuple[dict[str, Any], Any]:
    """Two views, and targets that depend on the first, on the second and on both in turn."""
    rng = np.random.default_rng(seed)
    views = {name: rng.normal(size=(n, p)) for name, p in zip("ab", WIDTHS, strict=True)}
    B = rng.normal(size=(sum(WIDTHS), q))
    B[: WIDTHS[0], ::3] = B[WIDTHS[0] :, 1::3] = 0
    Y = np.concatenate(list(views.values()), axis=1) @ B
    return views, Y + 10 * rng.normal(size=(n, q))


def _beside_himalaya(n: int, candidates: int, alphas: int) -> Iterator[Rows]:
    from himalaya.ridge import GroupRidgeCV
    from himalaya.scoring import r2_score

    views, Y = targets(n)
    weights = np.random.default_rng(0).dirichlet(np.ones(len(views)), candidates)
    grid = np.logspace(0, 3, alphas)
    model = MultitaskRegressor(bands="views", band_weights=weights, alphas=grid)
    solver = {"n_iter": weights, "alphas": grid, "n_alphas_batch": 1, "progress_bar": False,
              "score_func": r2_score}  # fmt: skip
    folds = PredefinedSplit(np.arange(n) % 5)
    peer = GroupRidgeCV(groups="input", solver_params=solver, cv=folds, fit_intercept=True)
    model.fit(views, Y)  # compiled code is warm
    ours = seconds(lambda: model.fit(views, Y))
    theirs = seconds(lambda: peer.fit(list(views.values()), Y))
    row = {
        "seconds": ours, "himalaya_seconds": theirs, "times_faster": theirs / ours,
        "largest_difference_of_cv_scores": float(np.abs(model.cv_scores_ - peer.cv_scores_).max()),
        "note": f"{candidates} candidates, {alphas} alphas, 5 folds, n_alphas_batch=1; bar 50 "
        "times faster, scores equal to 1e-6",
    }  # fmt: skip
    name = f"{n} x {' + '.join(map(str, WIDTHS))}, {Y.shape[1]} targets"
    yield {f"himalaya GroupRidgeCV / banded ridge, {name}": row}
    many = MultitaskRegressor(bands="views", random_state=0)
    row = {"seconds": seconds(lambda: many.fit(views, Y)), "note": "50 candidates, 20 alphas"}
    yield {f"banded ridge by default, {name}": row}


def _over_rows(sizes: tuple[int, ...]) -> Iterator[Rows]:
    with tempfile.TemporaryDirectory() as folder:
        for name, width in (("x", sum(WIDTHS)), ("y", 32)):
            rng = np.random.default_rng(width)
            file = np.lib.format.open_memmap(
                Path(folder) / f"{name}.npy", "w+", np.float32, (sizes[-1], width)
            )
            for start in range(0, sizes[-1], 10_000):
                part = rng.standard_normal(file[start : start + 10_000].shape, dtype=np.float32)
                file[start : start + 10_000] = part
            file.flush()
            del file
        for n in sizes:
            row: dict[str, Any] = peak_memory(DISK, folder, str(n))
            row["note"] = "20 candidates, 20 alphas, 5 folds; anonymous memory: a run of rows"
            yield {f"banded ridge, memory-map {n} x {sum(WIDTHS)}, 32 targets, float32": row}


DISK = """
import pathlib, threading
import numpy as np
from cmstats import MultitaskRegressor
folder, n = pathlib.Path(sys.argv[1]), int(sys.argv[2])
X, Y = (np.load(folder / f"{name}.npy", mmap_mode="r")[:n] for name in "xy")
how = {"bands": np.arange(X.shape[1]) // 64, "band_weights": 20, "random_state": 0}
MultitaskRegressor(**how).fit(np.array(X[:3000]), np.array(Y[:3000]))
top, done = [0.0], threading.Event()
def watch():
    while not done.wait(0.02):
        top[0] = max(top[0], status("RssAnon"))
before = status("RssAnon")
thread = threading.Thread(target=watch)
thread.start()
begin = time.perf_counter()
MultitaskRegressor(**how).fit(X, Y)
spent = time.perf_counter() - begin
done.set()
thread.join()
print(json.dumps({"seconds": spent, "extra_mib": top[0] - before}))
"""


def _emoji(candidates: int, quick: bool) -> Iterator[Rows]:
    """R2 of the colours of drawings from image and text: one penalty, or one for each view."""
    train, rgb, test, rgb_test = emoji_colours(quick)
    plain = MultitaskRegressor().fit(train, rgb)
    model = MultitaskRegressor(bands="views", band_weights=candidates, random_state=0)
    model.fit(train, rgb)
    shares = np.mean(model.score_by_band(test, rgb_test), axis=1)
    yield {
        "emoji colours from image and text": {
            "R2_one_penalty": plain.score(test, rgb_test),
            "R2_banded": model.score(test, rgb_test),
            **{
                f"R2_by_{name}": float(r) for name, r in zip(model.band_names_, shares, strict=True)
            },
            "note": "mean red, green and blue, 468 test items; parts by the product measure",
        }
    }
