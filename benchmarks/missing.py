"""Missing entries: time of an EM iteration, benefit and cost of incomplete rows."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import _data
from benchmarks._measure import Rows, ratio, seconds
from cmstats import CCA, ConditionalGaussian, Moments
from cmstats.datasets import load_mnist_halves
from cmstats.metrics import recall_at_k
from cmstats.moments.em import Problem, step

Views = tuple[Any, Any, Any, Any]


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    yield _iteration(20_000 if quick else 1_000_000)
    yield _complete_rows(4000 if quick else 400_000)
    yield _scattered(2 if quick else 40)
    sets: dict[str, Callable[[int], Views]] = {"emoji": functools.partial(_emoji, quick=quick)}
    try:
        halves = load_mnist_halves()
    except FileNotFoundError:
        pass
    else:
        sets["MNIST halves, 3000 rows"] = lambda seed: _halves(halves, seed)
    for name, split in sets.items():
        if not (quick and name != "emoji"):
            yield _retrieval(name, split, 1 if quick else 5)
            yield _densities(name, split, 1 if quick else 5)


def _blocks_missing(n: int, p: int = 96, q: int = 64) -> Moments:
    """One third pairs, one third rows of x alone, one third rows of y alone."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, 10))
    X, Y = (z @ rng.standard_normal((10, d)) + rng.standard_normal((n, d)) for d in (p, q))
    X[: n // 3], Y[n // 3 : 2 * n // 3] = np.nan, np.nan
    return Moments.from_data(x=X, y=Y, missing="em")


def _iteration(n: int) -> dict[str, Any]:
    def iterations(m: Moments) -> Callable[[], object]:
        problem = Problem.of(m.sums_by_pattern(), m.widths)
        stacks, point = list(problem.stacks()), (0 * problem.target, problem.available()[0])
        return lambda: [step(problem, stacks, point, 0.0) for _ in range(20)]

    row: dict[str, Any] = ratio(iterations(_blocks_missing(n)), iterations(_blocks_missing(10_000)))
    row["note"] = "20 iterations of EM, 96 + 64 columns, rows of x alone and of y alone; bar 1.2"
    return {f"EM iteration, {n} rows / 10000 rows": row}


def _complete_rows(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    X, Y = (rng.standard_normal((n, d), dtype=np.float32) for d in (256, 128))
    row: dict[str, Any] = ratio(
        lambda: Moments.from_data(x=X, y=Y, missing="em"), lambda: Moments.from_data(x=X, y=Y)
    )
    row["note"] = "rows without NaN, float32: what looking for it costs"
    return {f"moments of {n} x (256, 128), missing='em' / missing='error'": row}


def _scattered(trials: int) -> dict[str, Any]:
    """Distance of the covariance from the true one, 200 rows of 8 columns, 20% missing."""
    errors = []
    for seed in range(trials):
        rng = np.random.default_rng(seed)
        L = rng.standard_normal((8, 8)) + 2 * np.eye(8)
        full = rng.standard_normal((200, 8)) @ L
        rows = np.where(rng.random(full.shape) < 0.2, np.nan, full)
        kept = rows[~np.isnan(rows).any(axis=1)]
        filled = np.where(np.isnan(rows), np.nanmean(rows, axis=0), rows)
        m = Moments.from_data(x=rows, missing="em")
        found = [m.cov("x"), *(np.cov(a.T) for a in (kept, filled, full))]
        errors.append([np.linalg.norm(C - L.T @ L) / np.linalg.norm(L.T @ L) for C in found])
    em, dropped, mean, none = np.mean(errors, axis=0)
    return {
        "covariance with 20% of the entries missing, 200 x 8, relative error": {
            "em": em,
            "rows_dropped": dropped,
            "means_filled_in": mean,
            "nothing_missing": none,
            "note": f"Frobenius norm, mean of {trials} trials",
        }
    }


def _emoji(seed: int, *, quick: bool) -> Views:
    s = _data.emoji(seed).few() if quick else _data.emoji(seed)
    return s.x, s.y, s.x_test, s.y_test


def _halves(halves: Any, seed: int) -> Views:
    order = np.random.default_rng(seed).permutation(len(halves.left_train))[:3500]
    train, test = order[:3000], order[3000:]
    left, right = halves.left_train, halves.right_train
    return left[train], right[train], left[test], right[test]


def _retrieval(name: str, split: Callable[[int], Views], splits: int) -> dict[str, Any]:
    """Recall at 10, both ways, with 80% of the rows of y removed."""
    found, spent = [], 0.0
    for seed in range(splits):
        X, Y, X_test, Y_test = (np.asarray(a, dtype=float) for a in split(seed))
        lost = np.random.default_rng(seed).random(len(X)) < 0.8
        some = np.where(lost[:, None], np.nan, Y)
        fits = {
            "dropped": CCA(shrinkage="cv").fit(X[~lost], Y[~lost]),
            "em": CCA(shrinkage="cv", missing="em"),
            "all": CCA(shrinkage="cv").fit(X, Y),
        }
        spent += seconds(lambda: fits["em"].fit(X, some)) / splits  # noqa: B023
        found.append([_recall(model.similarity(X_test, Y_test)) for model in fits.values()])
    dropped, em, everything = np.mean(found, axis=0)
    gain = np.array(found)[:, 1] - np.array(found)[:, 0]
    error = float(gain.std(ddof=1) / splits**0.5) if splits > 1 else float("nan")
    return {
        f"recall at 10 with 80% of y removed, {name}": {
            "em": em,
            "rows_dropped": dropped,
            "nothing_removed": everything,
            "gain": float(gain.mean()),
            "gain_standard_error": error,
            "fit_seconds": spent,
            "note": f"CCA(shrinkage='cv'), weighted cosine, mean of {splits} splits",
        }
    }


def _densities(name: str, split: Callable[[int], Views], splits: int) -> dict[str, Any]:
    """Held-out log-densities and recall of the Gaussian, with 80% of the rows of y removed."""
    found = []
    for seed in range(splits):
        X, Y, X_test, Y_test = (np.asarray(a, dtype=float) for a in split(seed))
        lost = np.random.default_rng(seed).random(len(X)) < 0.8
        some = np.where(lost[:, None], np.nan, Y)
        for model, data in (
            (ConditionalGaussian(missing="em"), (X, some)),
            (ConditionalGaussian(), (X[~lost], Y[~lost])),
        ):
            model.fit(*data)
            log_x = float(np.mean(model.condition(on={}).logpdf(x=X_test)))
            recall = _recall(model.similarity(X_test, Y_test))
            found.append([model.score(X_test, Y_test), log_x, recall])
    em, dropped = (np.mean(found[i::2], axis=0) for i in (0, 1))
    keys = ("log_p_y_given_x", "log_p_x", "R@10")
    return {
        f"Gaussian with 80% of y removed, {name}": {
            **{f"{key}_em": float(a) for key, a in zip(keys, em, strict=True)},
            **{f"{key}_rows_dropped": float(a) for key, a in zip(keys, dropped, strict=True)},
            "note": f"ConditionalGaussian(), held-out means in nats, {splits} splits",
        }
    }


def _recall(scores: Any) -> float:
    return float(np.mean([recall_at_k(a) for a in (scores, scores.T)]))
