"""Inference: coverage of intervals, rejection under the null, the cost of permutations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks._measure import Rows, ratio, seconds
from benchmarks.cca import pairs
from cmstats import CCA
from cmstats.inference import (
    bootstrap,
    canonical_correlation_test,
    correlation_intervals,
    permutation_test,
)


def views(
    n: int, p: int, q: int, rho: Any, rng: np.random.Generator, *, tails: float | None = None
) -> tuple[Any, Any]:
    """Independent columns, except that the first pairs have correlations `rho`.

    Normal, or Student t with `tails` degrees of freedom.
    """

    def draw(*shape: int) -> Any:
        if tails is None:
            return rng.standard_normal(shape)
        return rng.standard_t(tails, shape) / np.sqrt(tails / (tails - 2))

    root = np.sqrt(np.asarray(rho, dtype=float))
    k = len(root)
    z, X, Y = draw(n, k), draw(n, p), draw(n, q)
    for a in (X, Y):
        a[:, :k] = root * z + np.sqrt(1 - root**2) * a[:, :k]
    return X, Y


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    for tails in (None, 3.0):
        yield _rejections(2 if quick else 1000, tails)
    for n, p, q, rho in (
        (200, 15, 10, (0.8, 0.5)),
        (500, 20, 15, (0.7, 0.5, 0.3)),
        (100, 5, 4, (0.8, 0.7)),
        (1000, 50, 30, (0.8, 0.5, 0.25)),
    ):
        for tails in (None, 5.0):
            yield _coverage(*(2, 20) if quick else (400, 200), n, p, q, rho, tails)
    yield _permutations(*(300, 64, 48, 10) if quick else (5000, 256, 192, 1000))
    yield _against_cca_zoo(10 if quick else 100)


def _rejections(sets: int, tails: float | None) -> dict[str, Any]:
    """Rejection rates at .05: component 1 under the null, component 2 after a true first one."""
    n, p, q = 100, 20, 15
    rng = np.random.default_rng(0)
    law = "normal" if tails is None else f"t{tails:g}"
    out = {}
    for planted in (0, 1):
        found: dict[str, int] = {}
        for i in range(sets):
            X, Y = views(n, p, q, (0.9,) * planted, rng, tails=tails)
            test = permutation_test(
                X, Y, statistic="all", n_components=planted + 1, n_permutations=199, random_state=i
            )
            for name in ("wilks", "pillai", "roy"):
                rejected = test.loc[(name, planted + 1), "p_value"] <= 0.05
                found[name] = found.get(name, 0) + int(rejected)
            normal = canonical_correlation_test(CCA().fit(X, Y))["wilks_p"].iloc[planted]
            found["normal_theory"] = found.get("normal_theory", 0) + int(normal <= 0.05)
            naive = _naive(X, Y, planted, 199, rng) <= 0.05
            found["naive"] = found.get("naive", 0) + int(naive)
        name = f"rejections at .05, {law} {n} x ({p}, {q}), component {planted + 1}"
        out[name] = {key: count / sets for key, count in found.items()} | {
            "data_sets": sets,
            "monte_carlo_error": (0.05 * 0.95 / sets) ** 0.5,
            "note": f"{planted} true components; naive: the later singular values of whole "
            "permuted data, without residualisation",
        }
    return out


def _naive(X: Any, Y: Any, k: int, permutations: int, rng: np.random.Generator) -> float:
    """Pillai's statistic from component k + 1 on against permutations of the whole data."""
    U, V = (np.linalg.svd(a - a.mean(axis=0), full_matrices=False)[0] for a in (X, Y))

    def later(order: Any) -> float:
        r = np.linalg.svd(U.T @ V[order], compute_uv=False)
        return float(np.sum(r[k:] ** 2))

    observed = later(np.arange(len(X)))
    null = [later(rng.permutation(len(X))) for _ in range(permutations)]
    return (1 + sum(value >= observed for value in null)) / (1 + permutations)


def _coverage(
    sets: int, resamples: int, n: int, p: int, q: int, rho: Any, tails: float | None
) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    truth, k = np.array(rho), len(rho)
    hits = {"jackknife": np.zeros(k), "percentile": np.zeros(k), "bca": np.zeros(k)}
    width = np.zeros(k)
    resampled = max(1, sets // 10)
    for i in range(sets):
        X, Y = views(n, p, q, rho, rng, tails=tails)
        table = correlation_intervals(X, Y, n_components=k, level=0.9)
        hits["jackknife"] += (table["lower"] <= truth) & (truth <= table["upper"])
        width += table["upper"] - table["lower"]
        if i < resampled:
            for method in ("percentile", "bca"):
                found = bootstrap(
                    CCA(k), X, Y, "correlations_", method=method, level=0.9,
                    n_resamples=resamples, random_state=i,
                )  # fmt: skip
                hits[method] += (found.lower <= truth) & (truth <= found.upper)
    law = "normal" if tails is None else f"t{tails:g}"
    row: dict[str, Any] = {
        "rho_sqrt_n": _listed(truth * n**0.5, 1),
        "jackknife": _listed(hits["jackknife"] / sets),
        "mean_width": _listed(width / sets),
        "percentile": _listed(hits["percentile"] / resampled),
        "bca": _listed(hits["bca"] / resampled),
        "data_sets": f"{sets} ({resampled} for the bootstrap, {resamples} resamples)",
        "note": "share of 90% intervals that hold the truth, per component; bar .85 to .95 where "
        "rho sqrt(n) is at least 7 and p + q well under n; where rho^2 is hardly above "
        f"sqrt(p q) / n = {(p * q) ** 0.5 / n:.2f} they are wide and cover more",
    }
    return {f"coverage, {law}, {n} x ({p}, {q}), rho {_listed(truth)}": row}


def _listed(values: Any, digits: int = 2) -> str:
    return " ".join(f"{v:.{digits}f}" for v in values)


def _permutations(n: int, p: int, q: int, count: int) -> dict[str, Any]:
    out = {}
    for dtype in (np.float64, np.float32):
        X, Y = pairs(n, p, q, dtype)
        U, V = np.ascontiguousarray(X), np.ascontiguousarray(Y)

        def bare(U: Any = U, V: Any = V) -> None:
            for _ in range(count):
                U.T @ V

        for statistic in ("wilks", "pillai"):

            def test(statistic: Any = statistic, X: Any = X, Y: Any = Y) -> None:
                permutation_test(X, Y, statistic=statistic, n_permutations=count, random_state=0)

            row: dict[str, Any] = ratio(test, bare, repeats=1 if count > 100 else 2)
            row["note"] = f"all {q} steps, against as many bare cross products; bar 1.5"
            name = np.dtype(dtype).name
            out[f"{count} permutations, {statistic}, {n} x ({p}, {q}) {name} / products"] = row
    return out


def _against_cca_zoo(count: int) -> dict[str, Any]:
    try:
        from cca_zoo.linear import CCA as Peer
        from cca_zoo.model_selection import permutation_test_significance
    except ImportError:
        return {}
    X, Y = pairs(1000, 30, 20)
    ours = min(
        seconds(lambda: permutation_test(X, Y, n_permutations=count, random_state=0))
        for _ in range(3)
    )
    theirs = seconds(
        lambda: permutation_test_significance(Peer(5), [X, Y], n_permutations=count, random_state=0)
    )
    return {
        f"cca-zoo / cmstats, {count} permutations of 1000 x (30, 20)": {
            "seconds": ours,
            "peer_seconds": theirs,
            "times_faster": theirs / ours,
            "note": "the peer permutes and refits 5 components, without stepwise residuals",
        }
    }
