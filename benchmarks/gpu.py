"""The kernels on a CUDA GPU against cuBLAS, naive CuPy and torch, each with its error.

Rates are fractions of what a bare library call reaches in the same run: the matrix product for
compute, a device copy for memory.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks._measure import NotRun, Rows
from cmstats import CCA, Moments
from cmstats.kernels import covariance, normal, ranks


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite; none without a GPU."""
    try:
        import cupy as cp
    except ImportError:
        raise NotRun("CuPy is not installed") from None
    if not cp.cuda.is_available():
        raise NotRun("no CUDA GPU")
    part = 10 if quick else 1
    device = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    yield {
        "device": {
            "name": device,
            "runtime": cp.cuda.runtime.runtimeGetVersion(),
            "driver": cp.cuda.runtime.driverGetVersion(),
            "cupy": cp.__version__,
        },
        "copy": _copy(cp),
    }
    for d in (512, 2048):
        for dtype in (np.float32, np.float16):
            yield _scatter(cp, 1_000_000 // part, d, dtype)
    yield _fit(cp, 1_000_000 // part)
    yield _logpdf(cp, 1_000_000 // part, 512)
    for d in (16, 32):
        yield _mixture(cp, 1_000_000 // part, d)
    yield _ranks(cp, 100_000 // part)
    for d in (512, 1024, 2048, 4096)[: 1 if quick else 4]:
        yield _factorisations(cp, d)


def milliseconds(cp: Any, call: Callable[[], object], repeats: int = 7) -> float:
    """The median time of a call on the device, by its own clock."""
    call()
    times = []
    for _ in range(repeats):
        begin, end = cp.cuda.Event(), cp.cuda.Event()
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(cp.cuda.get_elapsed_time(begin, end))
    return statistics.median(times)


def _error(cp: Any, found: Any, truth: Any) -> float:
    return float(cp.max(cp.abs(found - truth)) / cp.max(cp.abs(truth)))


def _copy(cp: Any) -> dict[str, Any]:
    a = cp.empty(1 << 28, cp.float32)
    b = cp.empty_like(a)
    ms = milliseconds(cp, lambda: cp.copyto(b, a))
    return {"milliseconds": ms, "gigabytes_per_second": 2 * a.nbytes / ms / 1e6}


def _data(cp: Any, n: int, d: int, dtype: Any) -> Any:
    Z = cp.random.default_rng(0).standard_normal((n, d), dtype=cp.float32) + 3
    return Z.astype(dtype)


def _scatter(cp: Any, n: int, d: int, dtype: Any) -> dict[str, Any]:
    Z = _data(cp, n, d, dtype)
    bare = milliseconds(cp, lambda: Z.T @ Z)
    truth = cp.zeros((d, d))
    mean = Z.mean(axis=0, dtype=cp.float64)
    for i in range(0, n, 50_000):
        z = Z[i : i + 50_000].astype(cp.float64) - mean
        truth += z.T @ z
    out = {}
    for precision in ("highest", "high"):
        ms = milliseconds(cp, lambda: covariance.scatter(Z, precision=precision), 3)  # noqa: B023
        out[f"scatter {n} x {d} {np.dtype(dtype).name}, {precision}"] = {
            "milliseconds": ms,
            "fraction_of_cublas": bare / ms,
            "error": _error(cp, covariance.scatter(Z, precision=precision)[2], truth),
            "note": "cuBLAS: Z.T @ Z of the same dtype; goal 0.9, and high twice highest",
        }
    return out


def _fit(cp: Any, n: int) -> dict[str, Any]:
    X, Y = _data(cp, n, 512, cp.float32), _data(cp, n, 384, cp.float32)
    Y += 0.5 * X[:, :384]

    def naive(xp: Any, X: Any, Y: Any) -> Any:
        x, y = X - X.mean(0), Y - Y.mean(0)
        A, B, C = x.T @ x, y.T @ y, x.T @ y
        L, M = xp.linalg.cholesky(A), xp.linalg.cholesky(B)
        K = xp.linalg.solve(L, C)
        return xp.linalg.svd(xp.linalg.solve(M, K.T).T)[1]

    ours = milliseconds(cp, lambda: CCA().fit(X, Y), 3)
    row = {
        "milliseconds": ours,
        "naive_cupy_milliseconds": milliseconds(cp, lambda: naive(cp, X, Y), 3),
        "moments_milliseconds": milliseconds(cp, lambda: Moments.from_data(x=X, y=Y), 3),
        "error": float(abs(CCA().fit(X, Y).correlations_ - naive(cp, X, Y)).max()),
        "note": "error: largest difference of correlations from the naive float32 ones",
    }
    try:
        import torch

        if torch.cuda.is_available():
            TX, TY = torch.from_dlpack(X), torch.from_dlpack(Y)
            row["naive_torch_milliseconds"] = milliseconds(cp, lambda: naive(torch, TX, TY), 3)
    except ImportError:
        pass
    return {f"CCA fit {n} x (512, 384) float32": row}


def _logpdf(cp: Any, n: int, d: int) -> dict[str, Any]:
    X = _data(cp, n, d, cp.float32)
    A = cp.random.default_rng(1).standard_normal((d, d))
    S, mean = (A @ A.T / d + cp.eye(d)).astype(cp.float32), cp.full(d, 3, cp.float32)
    ms = milliseconds(cp, lambda: normal.logpdf(X, mean, S))
    few = slice(0, 2000)
    exact = normal.logpdf(
        cp.asnumpy(X[few]).astype(float),
        cp.asnumpy(mean).astype(float),
        cp.asnumpy(S).astype(float),
    )
    row = {
        "milliseconds": ms,
        "bare_product_milliseconds": milliseconds(cp, lambda: X @ S),
        "error": _error(cp, normal.logpdf(X, mean, S)[few], cp.asarray(exact)),
    }
    try:
        import torch

        if torch.cuda.is_available():
            peer = torch.distributions.MultivariateNormal(
                torch.from_dlpack(mean), torch.from_dlpack(S)
            )
            TX = torch.from_dlpack(X)
            row["torch_milliseconds"] = milliseconds(cp, lambda: peer.log_prob(TX))
            row["times_faster"] = row["torch_milliseconds"] / ms
    except ImportError:
        pass
    return {f"normal log-density {n} x {d} float32": row | {"note": "goal 2 times torch"}}


def _mixture(cp: Any, n: int, d: int, k: int = 32) -> dict[str, Any]:
    X = _data(cp, n, d, cp.float32)
    rng = np.random.default_rng(1)
    A = rng.standard_normal((k, d, d))
    S = cp.asarray(A @ A.transpose(0, 2, 1) / d + np.eye(d), cp.float32)
    means = cp.asarray(rng.standard_normal((k, d)) + 3, cp.float32)
    weights = cp.full(k, 1 / k, cp.float32)
    ms = milliseconds(cp, lambda: normal.mixture_logpdf(X, weights, means, S))
    few = slice(0, 2000)
    exact = normal.mixture_logpdf(
        *(cp.asnumpy(a).astype(float) for a in (X[few], weights, means, S))
    )
    row = {
        "milliseconds": ms,
        "bytes_per_second_of_data": X.nbytes / ms * 1e3,
        "error": _error(cp, normal.mixture_logpdf(X, weights, means, S)[few], cp.asarray(exact)),
    }
    try:
        import torch

        if torch.cuda.is_available():
            D = torch.distributions
            T = torch.from_dlpack
            peer = D.MixtureSameFamily(
                D.Categorical(T(weights)), D.MultivariateNormal(T(means), T(S))
            )
            TX = T(X)
            row["torch_milliseconds"] = milliseconds(cp, lambda: peer.log_prob(TX), 3)
            row["times_faster"] = row["torch_milliseconds"] / ms
    except ImportError:
        pass
    note = "goal 10 times torch for d at most 32"
    return {f"mixture log-density {n} x {d}, {k} components": row | {"note": note}}


def _ranks(cp: Any, n: int, d: int = 512) -> dict[str, Any]:
    U = _data(cp, n, d, cp.float32)
    V = U + _data(cp, n, d, cp.float32)

    def bare() -> None:
        for i in range(0, n, 8192):
            U[i : i + 8192] @ V.T

    ms, base = milliseconds(cp, lambda: ranks.partner_ranks(U, V), 3), milliseconds(cp, bare, 3)
    return {f"partner ranks {n} x {n}, d={d}": {"milliseconds": ms, "over_bare_tiles": ms / base}}


def _factorisations(cp: Any, d: int) -> dict[str, Any]:
    A = cp.random.default_rng(0).standard_normal((2 * d, d))
    S = A.T @ A
    return {
        f"factorisations, d={d} float64": {
            "cholesky_milliseconds": milliseconds(cp, lambda: cp.linalg.cholesky(S), 3),
            "eigh_milliseconds": milliseconds(cp, lambda: cp.linalg.eigh(S), 3),
            "svd_milliseconds": milliseconds(cp, lambda: cp.linalg.svd(S), 3),
        }
    }
