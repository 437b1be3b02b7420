"""CCA: the fit against its own BLAS products and against peers, searches, memory."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks._measure import Rows, peak_memory, ratio, seconds
from cmstats import CCA, MomentsSearchCV

SHRINKAGES = [1e-4, 1e-3, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8]


def pairs(n: int, p: int, q: int, dtype: Any = np.float64, seed: int = 0) -> tuple[Any, Any]:
    """Paired views with 20 shared latent dimensions."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, 20), dtype=np.float32)
    out = []
    for d in (p, q):
        loadings = rng.standard_normal((20, d), dtype=np.float32)
        x = rng.standard_normal((n, d), dtype=np.float32)
        x += 0.5 * (z @ loadings)
        out.append(x.astype(dtype))
    return out[0], out[1]


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    shrink = 50 if quick else 1
    p, q = (64, 48) if quick else (512, 384)

    for n, dtype, bar in ((100_000, np.float64, 1.2), (400_000, np.float32, 1.3)):
        X, Y = pairs(n // shrink, p, q, dtype)
        row = ratio(lambda: CCA().fit(X, Y), lambda: (X.T @ X, Y.T @ Y, X.T @ Y))  # noqa: B023
        name = np.dtype(dtype).name
        row["note"] = f"fit against its three bare BLAS products; bar {bar}"
        yield {f"fit {len(X)} x ({p}, {q}) {name} / bare products": row}

    X, Y = pairs(100_000 // shrink, p, q)
    for k in (10, q):
        yield _against_cca_zoo(X, Y, k)
    yield _against_scikit_learn(500 if quick else 5000, quick)
    yield _search(100_000 // shrink, p // 2, q // 2)
    wide = (200, 2000, 500) if quick else (200, 20000, 5000)
    yield {"wide fit {} x ({}, {})".format(*wide): peak_memory(WIDE, *map(str, wide))}
    size = (200_000 // shrink, p, q)
    name = "extra memory of a fit of {} x ({}, {}) float32".format(*size)
    yield {name: peak_memory(EXTRA, *map(str, size))}


def _against_cca_zoo(X: Any, Y: Any, k: int) -> dict[str, Any]:
    try:
        from cca_zoo.linear import RidgeCCA
    except ImportError:
        return {}
    bare = min(seconds(lambda: (X.T @ X, Y.T @ Y, X.T @ Y)) for _ in range(3))
    ours = min(seconds(lambda: CCA(k, shrinkage=0.1).fit(X, Y)) for _ in range(3))
    theirs = seconds(lambda: RidgeCCA(k, shrinkage=0.1).fit([X, Y]))
    return {
        f"cca-zoo RidgeCCA / cmstats CCA, {len(X)} x ({X.shape[1]}, {Y.shape[1]}) float64, {k} "
        "components": {
            "seconds": ours,
            "bare_products_seconds": bare,
            "peer_seconds": theirs,
            "times_faster": theirs / ours,
            "limit": theirs / bare,
            "note": "shrinkage 0.1; bar 10; limit: peer over the bare BLAS products, which no fit "
            "from second moments can beat",
        }
    }


def _against_scikit_learn(n: int, quick: bool) -> dict[str, Any]:
    from sklearn.cross_decomposition import CCA as ScikitLearnCCA

    d, k = (64, 10) if quick else (512, 50)
    X, Y = pairs(n, d, d)
    CCA(k).fit(X, Y)
    ours = min(seconds(lambda: CCA(k).fit(X, Y)) for _ in range(3))
    theirs = seconds(lambda: ScikitLearnCCA(k).fit(X, Y))
    return {
        f"scikit-learn CCA / cmstats CCA, {n} x ({d}, {d}), {k} components": {
            "seconds": ours,
            "peer_seconds": theirs,
            "times_faster": theirs / ours,
            "note": "bar 200 at 5000 x (512, 512), 50 components",
        }
    }


def _search(n: int, p: int, q: int) -> dict[str, Any]:
    X, Y = pairs(n, p, q)
    search = MomentsSearchCV(CCA(10), {"shrinkage": SHRINKAGES})
    CCA(10).fit(X, Y)
    fit = min(seconds(lambda: CCA(10, shrinkage=0.1).fit(X, Y)) for _ in range(3))
    ours = min(seconds(lambda: search.fit(X, Y)) for _ in range(2))
    row: dict[str, Any] = {"seconds": ours, "fit_seconds": fit, "fits": ours / fit}
    row["note"] = "10 shrinkages x 5 folds, 10 components; bars: 20 times cca-zoo, 8 plain fits"
    try:
        from cca_zoo.linear import RidgeCCA
        from cca_zoo.model_selection import GridSearchCV
    except ImportError:
        return {f"search {n} x ({p}, {q})": row}
    grid = GridSearchCV(RidgeCCA(10), {"shrinkage": SHRINKAGES}, cv=5)
    row["peer_seconds"] = seconds(lambda: grid.fit([X, Y]))
    row["times_faster"] = row["peer_seconds"] / ours
    return {f"cca-zoo GridSearchCV / MomentsSearchCV, {n} x ({p}, {q}) float64": row}


WIDE = """
import numpy as np
from cmstats import CCA
rng = np.random.default_rng(0)
n, p, q = map(int, sys.argv[1:])
X, Y = rng.standard_normal((n, p)), rng.standard_normal((n, q))
before = resident()
begin = time.perf_counter()
CCA(10, shrinkage=0.1).fit(X, Y)
spent = time.perf_counter() - begin
print(json.dumps({"seconds": spent, "peak_mib": peak(), "extra_mib": peak() - before}))
"""

EXTRA = """
import numpy as np
from cmstats import CCA
rng = np.random.default_rng(0)
n, p, q = map(int, sys.argv[1:])
X = rng.standard_normal((n, p), dtype=np.float32)
Y = rng.standard_normal((n, q), dtype=np.float32)
CCA().fit(X[:2000].copy(), Y[:2000].copy())
before = resident()
CCA().fit(X, Y)
d = p + q
print(json.dumps({
    "extra_mib": peak() - before, "input_mib": (X.nbytes + Y.nbytes) / 2**20,
    "d_by_d_float64_mib": d * d * 8 / 2**20,
}))
"""
