"""EM for a mixture of normals against scikit-learn, per iteration and from the same start."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks._measure import Rows, peak_memory, ratio
from cmstats import ConditionalGaussianMixture
from cmstats.kernels.normal import component_logpdf
from cmstats.models.mixture_density import Mixture

ITERATIONS = 5


class StartedAt(ConditionalGaussianMixture):
    """EM from given means, the covariance of all rows and equal weights."""

    means: Any

    def _start(self, rows: Any, maximize: Any, rng: Any) -> Mixture:
        k, d = self.means.shape
        scaling: Any = rows.scaling
        S: dict[str, Any] = {
            "full": np.stack([np.eye(d)] * k),
            "tied": np.eye(d),
            "diagonal": np.ones((k, d)),
        }
        kind: Any = "diag" if self.covariance_type == "diagonal" else self.covariance_type
        means = (self.means - scaling.centre) / scaling.scale
        return Mixture(kind, np.full(k, 1 / k), means, S[self.covariance_type])


def rows(n: int, d: int, k: int, apart: float, dtype: Any = np.float64) -> Any:
    """Rows of k normals of unit variance, standardised."""
    rng = np.random.default_rng(0)
    Z = apart * rng.normal(size=(k, d))[rng.integers(k, size=n)] + rng.normal(size=(n, d))
    return ((Z - Z.mean(axis=0)) / Z.std(axis=0, ddof=1)).astype(dtype)


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    n = 2000 if quick else 100_000
    for kind in ("full", "tied", "diagonal"):
        # Overlapping components share every row; separate ones leave most of them to one.
        for apart in (0.2, 1.0) if kind == "full" else (0.2,):
            yield _against_scikit_learn(n, 32, 16, kind, apart)
    yield _against_scikit_learn(n, 32, 16, "full", 0.2, np.float32)
    yield _low_rank(n // 20)
    yield {f"extra memory of a fit of {n} x 32, 16 components": peak_memory(MEMORY, str(n))}


def _against_scikit_learn(
    n: int, d: int, k: int, kind: Any, apart: float, dtype: Any = np.float64
) -> dict[str, Any]:
    from sklearn.mixture import GaussianMixture

    Z = rows(n, d, k, apart, dtype)
    X, Y, means = Z[:, : d // 2], Z[:, d // 2 :], Z[:k].astype(np.float64)
    unit: dict[str, Any] = {"full": np.stack([np.eye(d)] * k), "tied": np.eye(d)}
    ours = StartedAt(k, covariance_type=kind, max_iter=ITERATIONS, tol=0)
    ours.means = means
    peer = GaussianMixture(
        k,
        covariance_type="diag" if kind == "diagonal" else kind,
        max_iter=ITERATIONS,
        tol=0,
        weights_init=np.full(k, 1 / k, dtype),
        means_init=means.astype(dtype),
        precisions_init=unit.get(kind, np.ones((k, d))).astype(dtype),
    )
    row: dict[str, Any] = ratio(lambda: ours.fit(X, Y), lambda: peer.fit(Z), repeats=3)
    row["times_faster"] = 1 / row["ratio"]
    row["seconds_per_iteration"] = row["seconds"] / ITERATIONS
    row["error"] = float(np.abs(ours.means_ - peer.means_).max())
    row["note"] = (
        f"{ITERATIONS} iterations from one start, all of fit in the time; centres {apart:g} "
        "standard deviations apart a column"
        + ("; bar 1.8" if kind == "full" and dtype == np.float64 else "")
    )
    name = f"EM {n} x {d}, {k} components, {kind} {np.dtype(dtype).name}, apart {apart:g}"
    return {f"{name} / scikit-learn": row}


def _low_rank(n: int, d: int = 512, k: int = 8, r: int = 10) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    Z, means = rng.normal(size=(n, d)), rng.normal(size=(k, d))
    L, D = rng.normal(size=(k, d, r)), rng.uniform(0.5, 1.5, (k, d))
    S = L @ L.transpose(0, 2, 1) + np.stack([np.diag(v) for v in D])
    row: dict[str, Any] = ratio(
        lambda: component_logpdf(Z, means, (L, D)), lambda: component_logpdf(Z, means, S), repeats=3
    )
    row["times_faster"] = 1 / row["ratio"]
    row["note"] = "loadings and noise variances against the covariance matrices they make"
    return {f"low-rank density {n} x {d}, {k} components of rank {r} / full": row}


MEMORY = """
import warnings
import numpy as np
from cmstats import ConditionalGaussianMixture
warnings.simplefilter("ignore")
n = int(sys.argv[1])
rng = np.random.default_rng(0)
X, Y = rng.standard_normal((n, 16)), rng.standard_normal((n, 16))
ConditionalGaussianMixture(16, max_iter=1, random_state=0).fit(X[:3000], Y[:3000])
before = resident()
ConditionalGaussianMixture(16, max_iter=2, random_state=0).fit(X, Y)
print(json.dumps({
    "extra_mib": peak() - before, "input_mib": (X.nbytes + Y.nbytes) / 2**20,
    "n_by_k_mib": n * 16 * 8 / 2**20,
}))
"""
