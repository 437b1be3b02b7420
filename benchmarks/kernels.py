"""The CPU kernels against their bare products, SciPy and scikit-learn, each with its error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks._measure import Rows, peak_memory, ratio, seconds
from cmstats.kernels import covariance, gram, normal, ranks
from cmstats.kernels.threads import cores, serial_blas, thread_map


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    part = 50 if quick else 1
    yield _scatter(100_000 // part)
    yield _logpdf(200_000 // part)
    yield _mixture(200_000 // part)
    for d in (512, 128):
        yield _rbf(20_000 // part, d)
    yield _ranks(20_000 // part)
    n = 20_000 // part
    yield {f"memory of ranks {n} x {n}, d=128": peak_memory(RANKS, str(n))}


def _peer(run: Any, ours: float, repeats: int = 3) -> dict[str, float]:
    theirs = min(seconds(run) for _ in range(repeats))
    return {"peer_seconds": theirs, "times_faster": theirs / ours}


def _error(found: Any, truth: Any) -> float:
    return float(np.max(np.abs(found - truth)) / np.max(np.abs(truth)))


def _scatter(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    out = {}
    for dtype in (np.float64, np.float32):
        Z = rng.standard_normal((n, 896)).astype(dtype) + dtype(3)
        row: dict[str, Any] = ratio(lambda: covariance.scatter(Z), lambda: Z.T @ Z)  # noqa: B023
        wide = Z.astype(np.float64)
        wide -= wide.mean(axis=0)
        row["error"] = _error(covariance.scatter(Z)[2], wide.T @ wide)
        row["note"] = "against the bare product Z.T @ Z; error relative to the largest variance"
        out[f"scatter {n} x 896 {np.dtype(dtype).name} / bare product"] = row
    return out


def _logpdf(n: int, d: int = 64) -> dict[str, Any]:
    from scipy.stats import multivariate_normal

    rng = np.random.default_rng(0)
    A = rng.standard_normal((d, d))
    mean, S = rng.standard_normal(d), A @ A.T / d + np.eye(d)
    X = rng.standard_normal((n, d))
    W = np.linalg.cholesky(np.linalg.inv(S))
    row: dict[str, Any] = ratio(lambda: normal.logpdf(X, mean, S), lambda: X @ W)
    peer = multivariate_normal(mean, S)
    row |= _peer(lambda: peer.logpdf(X), row["seconds"])
    row["error"] = _error(normal.logpdf(X, mean, S), peer.logpdf(X))
    row["limit"] = row["peer_seconds"] / row["base_seconds"]
    row["note"] = (
        "against the bare X @ W, bar 1.3; peer scipy.stats, bar 3; limit: peer over the bare "
        "product, which no density that forms X @ W can beat"
    )
    return {f"normal log-density {n} x {d} float64 / bare product": row}


def _mixture(n: int, d: int = 16, k: int = 32) -> dict[str, Any]:
    from sklearn.mixture import GaussianMixture
    from sklearn.mixture._gaussian_mixture import _compute_precision_cholesky

    rng = np.random.default_rng(0)
    A = rng.standard_normal((k, d, d))
    weights = rng.dirichlet(np.ones(k))
    means, S = 2 * rng.standard_normal((k, d)), A @ A.transpose(0, 2, 1) / d + np.eye(d)
    X = means[rng.integers(k, size=n)] + rng.standard_normal((n, d))
    peer = GaussianMixture(k)
    peer.weights_, peer.means_, peer.covariances_ = weights, means, S
    peer.precisions_cholesky_ = _compute_precision_cholesky(S, "full")
    row: dict[str, Any] = ratio(
        lambda: normal.mixture_logpdf(X, weights, means, S), lambda: peer.score_samples(X)
    )
    row["times_faster"] = 1 / row["ratio"]
    row["error"] = _error(normal.mixture_logpdf(X, weights, means, S), peer.score_samples(X))
    row["note"] = "base: scikit-learn GaussianMixture.score_samples; bar 4 times faster"
    return {f"mixture log-density {n} x {d}, {k} components / scikit-learn": row}


def _rbf(n: int, d: int, block: int = 4000) -> dict[str, Any]:
    from sklearn.metrics.pairwise import rbf_kernel

    rng = np.random.default_rng(0)
    X = rng.standard_normal((min(n, 4000), d)).astype(np.float32)
    Y = rng.standard_normal((min(n, block), d)).astype(np.float32)
    out = np.empty((len(X), len(Y)), np.float32)
    gamma = 0.5 / d
    row: dict[str, Any] = ratio(
        lambda: gram.gram(X, Y, kernel="rbf", gamma=gamma, out=out),
        lambda: np.matmul(X, Y.T, out=out),
    )
    row |= _peer(lambda: rbf_kernel(X, Y, gamma=gamma), row["seconds"])
    truth = rbf_kernel(X.astype(np.float64), Y.astype(np.float64), gamma=gamma)
    row["error"] = _error(gram.gram(X, Y, kernel="rbf", gamma=gamma), truth)
    row["note"] = "float32 into a reused buffer; bar 1.5 at d=512; peer scikit-learn rbf_kernel"
    return {f"rbf block {len(X)} x {len(Y)}, d={d} / bare product": row}


def _ranks(n: int, d: int = 128) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    U = rng.standard_normal((n, d)).astype(np.float32)
    V = (U + 2 * rng.standard_normal((n, d))).astype(np.float32)

    def bare() -> None:
        """The same tiles on the same threads, products only."""

        def work(i: int) -> None:
            out = np.empty((256, 1024), np.float32)
            u = U[i : i + 256]
            for j in range(0, n, 1024):
                v = V[j : j + 1024]
                np.matmul(u, v.T, out=out[: len(u), : len(v)])

        with serial_blas():
            thread_map(work, range(0, n, 256))

    row: dict[str, Any] = ratio(lambda: ranks.partner_ranks(U, V), bare)
    few = slice(None, None, max(1, n // 200))
    scores = U[few].astype(np.float64) @ V.astype(np.float64).T
    own = np.sum(U[few].astype(np.float64) * V[few], axis=1)
    truth = 1 + (scores > own[:, None]).sum(axis=1)
    row["error"] = float(np.max(np.abs(ranks.partner_ranks(U, V)[few] - truth)))
    row["note"] = f"against the bare tiled products on {cores()} threads; bar 1.3; error in ranks"
    return {f"partner ranks {n} x {n}, d={d} float32 / bare tiles": row}


RANKS = """
import numpy as np
from cmstats.kernels import ranks
n = int(sys.argv[1])
rng = np.random.default_rng(0)
U = rng.standard_normal((n, 128), dtype=np.float32)
V = U + rng.standard_normal((n, 128), dtype=np.float32)
ranks.partner_ranks(U[:500], V[:500])
before = resident()
ranks.partner_ranks(U, V)
print(json.dumps({"extra_mib": peak() - before}))
"""
