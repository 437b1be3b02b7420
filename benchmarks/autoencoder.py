"""LinearAutoencoder: the fit against scikit-learn's PCA, and codes with one view missing."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.decomposition import PCA, IncrementalPCA
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from benchmarks._measure import Rows, ratio, seconds
from cmstats import LinearAutoencoder, load_emoji, load_mnist_halves


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    yield _against_scikit_learn(4000 if quick else 200_000, 128 if quick else 1024, 64)
    yield _emoji((20,) if quick else (20, 64, 200))
    try:
        yield _mnist(((500, 10),) if quick else ((500, 10), (500, 64), (60_000, 10), (60_000, 64)))
    except FileNotFoundError as error:
        yield {"MNIST halves": {"note": f"not run: {error}"}}


def rows(n: int, p: int) -> Any:
    """Rows with a decaying spectrum, float32."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p), dtype=np.float32)
    X *= np.geomspace(1, 0.1, p, dtype=np.float32)
    half = rng.standard_normal((n, 64), dtype=np.float32)
    X += half @ rng.standard_normal((64, p), dtype=np.float32)
    return X


def _against_scikit_learn(n: int, p: int, k: int) -> dict[str, Any]:
    X = rows(n, p)
    ours = LinearAutoencoder(k)
    out: dict[str, Any] = {}
    where = f"{n} x {p} float32, {k} components"
    out[f"LinearAutoencoder / bare product, {where}"] = {
        **ratio(lambda: ours.fit(X), lambda: X.T @ X, repeats=3),
        "note": "the product that no fit from second moments can beat",
    }
    peers = {
        "PCA": PCA(k, random_state=0),
        "PCA covariance_eigh": PCA(k, svd_solver="covariance_eigh"),
        "IncrementalPCA": IncrementalPCA(k),
    }
    score = ours.fit(X).score(X[: n // 4])
    for name, peer in peers.items():
        spent = min(seconds(lambda: ours.fit(X)) for _ in range(2))
        theirs = seconds(lambda: peer.fit(X))  # noqa: B023
        again = peer.inverse_transform(peer.transform(X[: n // 4]))
        out[f"scikit-learn {name} / LinearAutoencoder, {where}"] = {
            "seconds": spent,
            "peer_seconds": theirs,
            "times_faster": theirs / spent,
            "explained": score,
            "peer_explained": _explained(X[: n // 4], again),
        }
    return out


def _explained(truth: Any, guess: Any) -> float:
    return float(r2_score(truth, guess, multioutput="variance_weighted"))


def _from_one_view(train: tuple[Any, Any], test: tuple[Any, Any], k: int) -> dict[str, Any]:
    """R2 of each view decoded from the code of the other, and by regression on that code."""
    est = LinearAutoencoder(k, target="joint").fit(*train)
    code = est.transform(*train)
    y = est.predict(test[0])
    x = est.inverse_transform(est.transform(y=test[1]))[0]
    plain = [LinearRegression().fit(a, code).predict(b) for a, b in zip(train, test, strict=True)]
    return {
        "y_from_x": _explained(test[1], y),
        "x_from_y": _explained(test[0], x),
        "pair_from_both": est.score(*test),
        "unshrunken_y_from_x": _explained(test[1], est.inverse_transform(plain[0])[1]),
        "unshrunken_x_from_y": _explained(test[0], est.inverse_transform(plain[1])[0]),
        "note": "R2 on held-out rows, 0 is the mean; unshrunken: least squares of the code",
    }


def _emoji(components: tuple[int, ...]) -> dict[str, Any]:
    emoji = load_emoji()
    train, test = emoji.train, emoji.test
    return {
        f"emoji, x image, y text, {k} components": _from_one_view(
            (emoji.image[train], emoji.text[train]), (emoji.image[test], emoji.text[test]), k
        )
        for k in components
    }


def _mnist(sizes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    digits = load_mnist_halves()
    test = digits.left_test, digits.right_test
    return {
        f"MNIST halves, {m} digits, x left, y right, {k} components": _from_one_view(
            (digits.left_train[:m], digits.right_train[:m]), test, k
        )
        for m, k in sizes
    }
