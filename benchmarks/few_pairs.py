"""Two frozen encoders aligned with few pairs: retrieval by number of pairs, on each set."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from benchmarks._data import Split, available, few
from benchmarks._measure import Rows
from cmstats import (
    CCA,
    CrossModalRetriever,
    KernelCCA,
    MultitaskRegressor,
    load_mnist_halves,
    retrieval_report,
)
from cmstats.baselines import ASIF, ContrastiveAligner, DeepCCA
from cmstats.model_selection.costs import PeakMemory

SIZES = (100, 300, 1000, 3000)
ALIGNED_SIZES = (40, 80, 160)
MEASURES = ("R@1", "R@10", "MRR")
AGAIN = ("CrossModalRetriever", "ASIF")
"""What a quick run tries on every set."""

Array = Any


@dataclass(frozen=True)
class Pairs:
    """Training pairs, in an order from which any number can be taken, and test items."""

    x: Array
    y: Array
    x_test: Array
    y_test: Array
    groups: Array = None

    def few(self) -> Pairs:
        """Few rows and columns of it, for quick runs."""
        groups = None if self.groups is None else self.groups[:100]
        views = (self.x, self.y, self.x_test, self.y_test)
        return Pairs(*(few(a, n) for a, n in zip(views, (100, 100, 60, 60), strict=True)), groups)

    def first(self, n: int) -> tuple[Array, Array, Array]:
        """The first n pairs and their groups."""
        return self.x[:n], self.y[:n], None if self.groups is None else self.groups[:n]


def run(*, quick: bool, only: str = "") -> Iterator[Rows]:
    """All measurements of this suite, or those whose name contains `only`: few pairs first.

    A quick run tries every method on the first set alone.
    """
    warnings.simplefilter("ignore")
    known = sets()
    sizes = {}
    for name, load in known.items():
        most, small = len(load(0).x), ALIGNED_SIZES if name.startswith("aligned") else SIZES
        found = sorted({*(n for n in small if n < most), most})
        sizes[name] = found[:1] if quick else found
    for n, name in sorted((n, name) for name, found in sizes.items() for n in found):
        splits = [known[name](seed) for seed in range(1 if quick else draws(n))]
        if quick:
            splits = [split.few() for split in splits]
        same = splits[0].x.shape[1] == splits[0].y.shape[1]
        place, cosines, made = f"{name}, {n} pairs", [], methods(quick, same)
        wanted = {method for method in made if only in f"{place}: {method}"}
        if "CrossModalRetriever" in wanted:  # which is compared with them
            wanted |= {method for method in made if method.endswith("cosine")}
        for method, make in made.items():
            again = quick and name != next(iter(known)) and method not in AGAIN
            if method not in wanted or again:
                continue
            row = measured(make, splits, n)
            if method.endswith("cosine"):
                cosines.append(row)
            elif method == "CrossModalRetriever":
                row |= gain(row, cosines)
            yield {f"{place}: {method}": row}


def gain(row: dict[str, Any], cosines: list[dict[str, Any]]) -> dict[str, float]:
    """How far the MRR is above that of the better cosine, and the standard error over splits.

    The better cosine is the one of the larger mean over the splits; differences are within a
    split, since what a split is worth is common to both.
    """
    if not cosines or "MRR" not in row:
        return {}
    best = max(cosines, key=lambda one: one["MRR"])
    difference = np.subtract(row["MRR_of_splits"], best["MRR_of_splits"])
    error = difference.std(ddof=1) / len(difference) ** 0.5 if len(difference) > 1 else 0.0
    return {"MRR_above_cosine": float(difference.mean()), "above_standard_error": float(error)}


def draws(n: int) -> int:
    """Few pairs differ more from draw to draw."""
    return 10 if n <= 160 else 5 if n <= 1500 else 3


def measured(make: Callable[[int], Any], splits: list[Pairs], n: int) -> dict[str, Any]:
    """Means over the splits with their standard errors, CPU seconds, memory of the first fit.

    CPU seconds are those of all threads of the process, which other processes change little; the
    first fit, whose memory is traced, counts in them only where it is the only one.
    """
    found, spent = [], []
    peak = PeakMemory()
    for seed, split in enumerate(splits):
        X, y, groups = split.first(n)
        given = {} if groups is None else {"groups": groups}
        model = make(seed)
        begin = time.process_time()
        try:
            with contextlib.nullcontext() if spent else peak:
                fit(model, X, y, given)
            spent.append(time.process_time() - begin)
            U, V = model.embed(split.x_test, split.y_test)
        except Exception as error:  # a baseline that needs more pairs
            return {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        report = retrieval_report(U, V, ks=(1, 10))
        found.append(report.loc["mean", list(MEASURES)].to_numpy(float))
    values = np.array(found)
    errors = values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else values[0] * 0
    row: dict[str, Any] = {}
    for at, measure in enumerate(MEASURES):
        row[measure] = float(values[:, at].mean())
        row[f"{measure}_standard_error"] = float(errors[at])
    row["fit_cpu_seconds"] = float(np.median(spent[1:] or spent))
    row["peak_memory_mb"] = peak.mb
    row["MRR_of_splits"] = values[:, MEASURES.index("MRR")].tolist()
    return {**row, "note": f"{len(splits)} splits, {len(splits[0].x_test)} test items"}


def fit(model: Any, X: Array, y: Array, given: dict[str, Any]) -> Any:
    """Fit with groups where the model takes them."""
    with contextlib.suppress(TypeError, AttributeError):
        if "groups" in model.fit.__code__.co_varnames:
            return model.fit(X, y, **given)
    return model.fit(X, y)


# ------------------------------------------------------------------------------ methods
def methods(quick: bool, same: bool) -> dict[str, Callable[[int], Any]]:
    """By name the model of a seed; the cosines only where both views have one width."""
    out: dict[str, Callable[[int], Any]] = {}
    if same:
        out["plain cosine"] = lambda seed: Cosine(center=False)
        out["centred cosine"] = lambda seed: Cosine(center=True)
    budget, k = (0.0, 8) if quick else (None, 50)
    out |= {
        "CrossModalRetriever": lambda seed: CrossModalRetriever(
            time_budget=budget, random_state=seed
        ),
        "CCA": lambda seed: CCA(shrinkage="cv"),
        "CSA": lambda seed: Kind(CCA(shrinkage="cv"), "csa"),
        "orthogonal Procrustes": lambda seed: Procrustes(),
        "ridge": lambda seed: Predicted(MultitaskRegressor()),
        "reduced-rank regression": lambda seed: Predicted(MultitaskRegressor(rank="cv")),
        "ASIF": lambda seed: ASIF(random_state=seed),
        "KernelCCA": lambda seed: KernelCCA(2 * k, shrinkage="cv", random_state=seed),
    }
    if importlib.util.find_spec("torch") is None:
        return out
    epochs = {"max_epochs": 2} if quick else {}
    return out | {
        "contrastive, linear": lambda seed: ContrastiveAligner(random_state=seed, **epochs),
        "contrastive, MLP": lambda seed: ContrastiveAligner(
            hidden=(512,), random_state=seed, **epochs
        ),
        "DeepCCA": lambda seed: DeepCCA(k, monitor="retrieval", random_state=seed, **epochs),
    }


def unit(a: Array) -> Array:
    """Rows at unit length."""
    return a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)


class Cosine:
    """The cosine of the rows as they are, or less the training means."""

    def __init__(self, *, center: bool) -> None:
        self.center = center

    def fit(self, X: Array, y: Array) -> Self:
        self.means = (X.mean(axis=0), y.mean(axis=0)) if self.center else (0.0, 0.0)
        return self

    def embed(self, X: Array, y: Array) -> tuple[Array, Array]:
        return unit(X - self.means[0]), unit(y - self.means[1])


class Procrustes(Cosine):
    """The (semi-)orthogonal map of centred x to centred y of least squared error, and cosines."""

    def __init__(self) -> None:
        super().__init__(center=True)

    def fit(self, X: Array, y: Array) -> Self:
        super().fit(X, y)
        U, _, Vt = np.linalg.svd((X - self.means[0]).T @ (y - self.means[1]), full_matrices=False)
        self.map = U @ Vt
        return self

    def embed(self, X: Array, y: Array) -> tuple[Array, Array]:
        return unit((X - self.means[0]) @ self.map), unit(y - self.means[1])


class Predicted(Cosine):
    """The cosine of the prediction of y with y, both less the training mean of y."""

    def __init__(self, model: Any) -> None:
        super().__init__(center=True)
        self.model = model

    def fit(self, X: Array, y: Array) -> Self:
        self.model.fit(X, y)
        return super().fit(X, y)

    def embed(self, X: Array, y: Array) -> tuple[Array, Array]:
        return unit(self.model.predict(X) - self.means[1]), unit(y - self.means[1])


class Kind(Cosine):
    """Another similarity of a model."""

    def __init__(self, model: Any, kind: str) -> None:
        super().__init__(center=True)
        self.model, self.kind = model, kind

    def fit(self, X: Array, y: Array) -> Self:
        self.model.fit(X, y)
        return self

    def embed(self, X: Array, y: Array) -> tuple[Array, Array]:
        found: tuple[Array, Array] = self.model.embed(X, y, kind=self.kind)
        return found


# --------------------------------------------------------------------------------- sets
def sets() -> dict[str, Callable[[int], Pairs]]:
    """The available sets, each with a split for every seed."""
    found: dict[str, Callable[[int], Pairs]] = {}
    folder = Path(os.environ.get("CMSTATS_DATA", ""))
    if (folder / "aligned_pairs500.npz").exists():
        aligned = dict(np.load(folder / "aligned_pairs500.npz"))
        for label, name in (("CLIP", "clip"), ("ConVIRT", "convirt")):
            x, y = (aligned[f"{name}_{view}"].astype(float) for view in ("image", "text"))
            found[f"aligned, {label}"] = lambda seed, x=x, y=y: cut(x, y, 100, seed)
    if (folder / "openclipart.npz").exists():
        found["openclipart"] = clipart(folder / "openclipart.npz")
    for name, load in available().items():
        found[name] = lambda seed, load=load: shuffled(load(seed), seed)
    with contextlib.suppress(FileNotFoundError):
        halves = load_mnist_halves()
        found["MNIST halves"] = lambda seed: digits(halves, seed)
    return found


def cut(x: Array, y: Array, test: int, seed: int) -> Pairs:
    order = np.random.default_rng(seed).permutation(len(x))
    return Pairs(x[order[test:]], y[order[test:]], x[order[:test]], y[order[:test]])


def shuffled(split: Split, seed: int) -> Pairs:
    """The training pairs of a split in random order."""
    order = np.random.default_rng(seed).permutation(len(split.x))
    return Pairs(split.x[order], split.y[order], split.x_test, split.y_test)


def clipart(path: Path) -> Callable[[int], Pairs]:
    """Split by title: a fifth of the titles is for testing, by one item each.

    Titles repeat, some hundreds of times. Training pairs begin with one item of each title; the
    others follow, with the titles as groups.
    """
    data = np.load(path, allow_pickle=False)
    x, y = data["image"].astype(np.float32), data["text"].astype(np.float32)
    codes = np.unique(np.char.lower(data["title"].astype(str)), return_inverse=True)[1]

    def split(seed: int) -> Pairs:
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(codes))
        first = np.zeros(len(codes), dtype=bool)
        first[order[np.unique(codes[order], return_index=True)[1]]] = True
        titles = rng.permutation(int(codes.max()) + 1)
        tested = np.isin(codes, titles[: len(titles) // 5])
        train = np.concatenate([order[~tested[order] & (first[order] == f)] for f in (True, False)])
        test = np.flatnonzero(tested & first)
        return Pairs(x[train], y[train], x[test], y[test], codes[train])

    return split


def digits(halves: Any, seed: int) -> Pairs:
    """Left and right halves of 6000 digits, and of 2000 for testing."""
    rng = np.random.default_rng(seed)
    train = rng.permutation(len(halves["left_train"]))[:6000]
    test = rng.permutation(len(halves["left_test"]))[:2000]
    return Pairs(
        *(halves[f"{side}_train"][train] for side in ("left", "right")),
        *(halves[f"{side}_test"][test] for side in ("left", "right")),
    )
