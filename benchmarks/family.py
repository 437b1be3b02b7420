"""The rest of the family beside its peers: PLS, orthogonal maps, sparse pairs, banded ridge."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, KFold

from benchmarks._family_bands import banded
from benchmarks._family_sparse import sparse
from benchmarks._measure import NotRun, Rows, ratio, seconds
from cmstats import PLS, Moments, NystroemMap, OrthogonalMap
from cmstats.datasets import load_mnist_halves

Views = tuple[Any, Any]

PENALTIES = np.logspace(-3, 6.5, 20)
"""Those of ``OrthogonalMap(alpha="cv")``, but for 0."""


def run(*, quick: bool, only: str = "") -> Iterator[Rows]:
    """All measurements of this suite, or of its parts whose name contains `only`."""
    warnings.simplefilter("ignore")
    parts = [part for part in PARTS if only in part.__name__]
    if not parts:
        raise NotRun(f"no part of it is called {only!r}")
    for part in parts:
        try:
            yield from part(quick)
        except (FileNotFoundError, ModuleNotFoundError) as error:
            yield {f"not run: {part.__name__.strip('_')}": {"note": str(error)}}


def _latent(n: int, p: int, q: int, seed: int = 0, rank: int = 40) -> Views:
    """Two views of a latent with falling variances, in single precision."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, rank)) * 0.95 ** np.arange(rank)
    X = z @ rng.normal(size=(rank, p)) + 2 * rng.normal(size=(n, p))
    Y = z @ rng.normal(size=(rank, q)) + 2 * rng.normal(size=(n, q))
    return X.astype(np.float32), Y.astype(np.float32)


def _pls(quick: bool) -> Iterator[Rows]:
    """One fit of 20 components, and the choice among 1 to 30 in 5 folds."""
    n, p, q = (1000, 64, 16) if quick else (100_000, 512, 64)
    X, Y = _latent(n, p, q)
    PLS(2).fit(X[:500], Y[:500])  # compile
    k = 10 if quick else 20
    ours = seconds(lambda: PLS(k).fit(X, Y))
    peer = PLSRegression(k)
    theirs = seconds(lambda: peer.fit(X, Y))
    few = X[:2000], Y[:2000]
    exact = PLSRegression(k, tol=1e-14, max_iter=20_000).fit(*few)
    apart = np.abs(PLS(k).fit(*few).coef_ - exact.coef_).max() / np.abs(exact.coef_).max()
    yield {
        f"PLS, {k} components, {n} x ({p}, {q})": {
            "seconds": ours, "scikit_learn_seconds": theirs, "times_faster": theirs / ours,
            "largest_difference_of_coefficients": float(apart),
            "note": "bar: 20 times faster; the difference is to tol=1e-14, of 2000 rows",
        }
    }  # fmt: skip
    row = ratio(lambda: PLS("cv", cv=5).fit(X, Y), lambda: Moments.from_data(x=X, y=Y), repeats=3)
    chosen = PLS("cv", cv=5).fit(X, Y)
    tried = len(chosen.cv_scores_)
    few = 500 if quick else 5_000
    grid = {"n_components": list(range(1, 4 if quick else 31))}
    search = GridSearchCV(PLSRegression(), grid, cv=5)
    theirs = seconds(lambda: search.fit(X[:few], Y[:few]))
    ours = seconds(lambda: PLS("cv", cv=5).fit(X[:few], Y[:few]))
    yield {
        f"PLS, choice of 1 to {tried} components in 5 folds, {n} rows": {
            "seconds": row["seconds"], "passes": row["ratio"], "passes_max": row["ratio_max"],
            "chosen": float(chosen.n_components_),
            "note": "bar: 3 passes over the rows (one pass is Moments.from_data)",
        },
        f"PLS, the same of {few} rows": {
            "seconds": ours, "GridSearchCV_seconds": theirs, "times_faster": theirs / ours,
            "note": f"GridSearchCV of PLSRegression over 1 to {len(grid['n_components'])}",
        },
    }  # fmt: skip


def _beside_ridge(quick: bool) -> Iterator[Rows]:
    """Seconds of the orthogonal map beside Ridge, and of the choice of alpha beside RidgeCV."""
    n, d = (1000, 64) if quick else (100_000, 512)
    X, Y = _latent(n, d, d)
    few = slice(None, 1000 if quick else 20_000)
    double = X.astype(np.float64), Y.astype(np.float64)
    pairs = [
        ("alpha=0", OrthogonalMap(), Ridge(), (X, Y), 9),
        ("alpha=0, float64", OrthogonalMap(), Ridge(), double, 9),
        ("alpha=0", OrthogonalMap(), Ridge(), (X[few], Y[few]), 9),
        ("alpha=0, float64", OrthogonalMap(), Ridge(), [v[few] for v in double], 9),
        ('alpha="cv"', OrthogonalMap(alpha="cv"), Ridge(), (X, Y), 9),
        (
            'alpha="cv"',
            OrthogonalMap(alpha="cv"),
            RidgeCV(PENALTIES, cv=KFold(5)),
            (X[few], Y[few]),
            1,
        ),
    ]
    for name, ours, peer, rows, repeats in pairs:
        row = ratio(
            lambda peer=peer, rows=rows: peer.fit(*rows),
            lambda ours=ours, rows=rows: ours.fit(*rows),
            repeats=repeats,
        )
        what = type(peer).__name__
        note = f"{len(PENALTIES)} penalties in 5 folds" if what == "RidgeCV" else "one given alpha"
        yield {
            f"OrthogonalMap, {name}, {len(rows[0])} x ({d}, {d})": {
                "seconds": row["base_seconds"], f"{what}_seconds": row["seconds"],
                "times_faster": row["ratio"], "times_faster_min": row["ratio_min"],
                "times_faster_max": row["ratio_max"], "note": f"{what} with {note}",
            }
        }  # fmt: skip


def _procrustes(quick: bool) -> Iterator[Rows]:
    """Seconds beside Ridge, and neighbours that survive between two kernel maps of the digits."""
    yield from _beside_ridge(quick)
    data = load_mnist_halves()
    rows = np.random.default_rng(0).permutation(len(data.left_train))[: 600 if quick else 10_000]
    left = np.float32(data.left_train[rows])
    train, test = slice(0, len(rows) * 3 // 4), slice(len(rows) * 3 // 4, None)
    rank = 50 if quick else 200
    maps = [
        NystroemMap("rbf", rank=rank, gamma=gamma, random_state=seed).fit(left[train])
        for seed, gamma in enumerate((0.005, 0.02))
    ]
    old, new = (one.transform(left) for one in maps)
    for count in (100, 300, len(old[train])):
        at = slice(0, count)
        models = {
            "orthogonal": OrthogonalMap(),
            "toward orthogonal": OrthogonalMap(alpha="cv"),
            "ridge": Ridge(alpha=1e-2),
        }
        for name, model in models.items():
            model.fit(old[at], new[at])
            score = r2_score(new[test], model.predict(old[test]))
            row = {"R2": float(score), "note": "two Nyström maps of the left halves"}
            if isinstance(model, OrthogonalMap):
                row["neighbours_kept"] = model.retention(old[test], new[test], k=10)
            yield {f"moved from one map to another, {count} pairs: {name}": row}


PARTS: list[Callable[[bool], Iterator[Rows]]] = [_pls, _procrustes, banded, sparse]
