"""Promises: coverage of conformal sets and regions, wrong pairs found, classes from their names."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator

from benchmarks._data import few
from benchmarks._measure import Rows
from cmstats import (
    CCA,
    ConditionalGaussian,
    ConformalRetriever,
    MultitaskRegressor,
    PrototypeClassifier,
    SemanticMatching,
    check_pairs,
    load_emoji,
    load_mnist_halves,
    load_wikipedia,
    match_probability,
)
from cmstats.datasets import load_fashion
from cmstats.inference.conformal import within
from cmstats.inference.wrong_pairs import false_discoveries
from cmstats.metrics import expected_calibration_error

LEVELS = (0.8, 0.9, 0.95)
SHRINKAGE = {"emoji": 0.4, "fashion": 0.4, "mnist": 0.1, "wikipedia": 0.4, "openclipart": 0.3}
"""Fixed, so that a split costs one fit: what is promised holds for any."""
REDEALT = 50
"""How often the rows that a fit has not seen are split anew."""
Views = tuple[Any, Any]


def run(*, quick: bool, only: str = "") -> Iterator[Rows]:
    """All measurements of this suite, or the parts whose name contains `only`."""
    warnings.simplefilter("ignore")
    for name, part in _measurements(quick):
        if only in name:
            yield from part()


def _measurements(quick: bool) -> Iterator[tuple[str, Callable[[], Iterator[Rows]]]]:
    """The parts of this suite by their names."""
    splits, repetitions = (3, 1) if quick else (1000, 20)
    sets = dict(_sets())
    if quick:
        sets = {name: (few(X, 700), few(y, 700)) for name, (X, y) in sets.items()}
    for name, (X, y) in sets.items():
        yield f"retrieval, {name}", partial(_retrieval, name, X, y, splits)
        yield f"folds, {name}", partial(_folds, name, X, y, 1 if quick else 20)
        yield f"regions, {name}", partial(_regions, name, X, y, splits)
    for law in ("t3", "skewed"):
        yield f"regions, {law}", partial(_regions, law, *_noise(law), splits)
    yield "groups", partial(_groups, min(splits, 200))
    for name, (X, y) in sets.items():
        if name != "wikipedia":
            for share in (0.0, 0.05) if quick else (0.0, 0.02, 0.05, 0.2):
                what = f"wrong pairs, {name}, {share:g}"
                yield what, partial(_wrong_pairs, name, X, y, share, repetitions)
    for name, (X, y) in sets.items():
        yield f"match probability, {name}", partial(_matches, name, X, y)
    yield "classes", partial(_classes, quick)


def _sets() -> Iterator[tuple[str, Views]]:
    """Emoji, and the standard sets that are there."""
    loaders: dict[str, Callable[[], Views]] = {
        "emoji": lambda: load_emoji(return_X_y=True),
        "fashion": lambda: _fashion()[:2],
        "mnist": _mnist,
        "wikipedia": _wikipedia,
    }
    for name, load in loaders.items():
        try:
            yield name, load()
        except FileNotFoundError:
            continue


def _fashion() -> tuple[Any, Any, Any, Any]:
    """CLIP image features, TF-IDF of the names, the product data and the vectorizer."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    data = load_fashion()
    vectorizer = TfidfVectorizer(min_df=2, dtype=np.float32).fit(data.names)
    image = data.image / np.linalg.norm(data.image, axis=1, keepdims=True)
    return image, vectorizer.transform(data.names).toarray(), data, vectorizer


def _mnist(n: int = 3000) -> Views:
    data = load_mnist_halves()
    at = np.random.default_rng(0).permutation(len(data.left_train))[:n]
    return tuple(np.float32(data[f"{side}_train"][at]) for side in ("left", "right"))  # type: ignore[return-value]


def _wikipedia() -> Views:
    data = load_wikipedia()
    return tuple(  # type: ignore[return-value]
        np.concatenate([data[f"{view}_train"], data[f"{view}_test"]]) for view in ("image", "text")
    )


def _noise(law: str, n: int = 1500) -> Views:
    """Linear targets with heavy-tailed or skewed noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 10))
    noise = rng.standard_t(3, (n, 4)) if law == "t3" else rng.exponential(size=(n, 4)) ** 1.5
    noise[:, 1] += 0.8 * noise[:, 0]
    return X, X @ rng.normal(size=(10, 4)) + noise


def _parts(n: int, seed: int) -> tuple[Any, Any, Any]:
    """Half of the rows to train on, a quarter to calibrate, a quarter to test."""
    order = np.random.default_rng(seed).permutation(n)
    return order[: n // 2], order[n // 2 : 3 * n // 4], order[3 * n // 4 :]


def _redealt(held: Any, test: Any, seed: int) -> Any:
    """The rows that the fit has not seen, in a new order."""
    return np.random.default_rng([seed, 1]).permutation(np.concatenate([held, test]))


def _retrieval(name: str, X: Any, y: Any, splits: int) -> Iterator[Rows]:
    """Split calibration over random splits into calibration and test rows, fifty to a fit."""
    covered, sizes, m = [], [], 0
    for seed in range(splits):
        train, held, test = _parts(len(X), seed // REDEALT)
        if seed % REDEALT == 0:
            model = FrozenEstimator(CCA(shrinkage=SHRINKAGE[name]).fit(X[train], y[train]))
        rest = _redealt(held, test, seed)
        held, test = rest[: len(held)], rest[len(held) :]
        retriever = ConformalRetriever(model, confidence=0.8, random_state=seed)
        p = retriever.fit(X[held], y[held]).p_values(X[test], y[test])
        m = len(test)
        covered.append([within(p.diagonal(), level).mean() for level in LEVELS])
        sizes.append([within(p, level).sum() / m for level in LEVELS])
    row = _by_level(covered) | {
        f"size_{c:g}": s for c, s in zip(LEVELS, np.mean(sizes, 0), strict=True)
    }
    row |= {f"chance_size_{c:g}": c * m for c in LEVELS}
    note = "bar: nominal - .005 to nominal + .02; the size of a model of chance beside"
    yield {f"coverage of retrieval sets, {name}": {**row, "splits": splits, "note": note}}


def _by_level(covered: Any) -> dict[str, Any]:
    return {f"coverage_{c:g}": float(v) for c, v in zip(LEVELS, np.mean(covered, 0), strict=True)}


def _folds(name: str, X: Any, y: Any, splits: int) -> Iterator[Rows]:
    """A vote of five folds, and pooled scores, of a third of the pairs."""
    out: Rows = {}
    for method in ("cross", "pooled"):
        covered = []
        for seed in range(splits):
            order = np.random.default_rng(seed).permutation(len(X))
            train, test = order[: len(X) // 3], order[-len(X) // 4 :]
            retriever = ConformalRetriever(
                CCA(shrinkage=SHRINKAGE[name]), confidence=0.8, method=method, random_state=seed
            )
            p = retriever.fit(X[train], y[train]).p_values(X[test], y[test]).diagonal()
            covered.append([within(p, level).mean() for level in LEVELS])
        note = "bar: at least nominal - .005" if method == "cross" else "promises nothing"
        row = {**_by_level(covered), "splits": splits, "note": note}
        out[f"coverage of retrieval sets, {method}, {name}"] = row
    yield out


def _regions(name: str, X: Any, y: Any, splits: int) -> Iterator[Rows]:
    """Ellipsoids and intervals for the first targets, of the Gaussian model and of ridge."""
    # Of wide text the eight columns of largest variance.
    y = y[:, np.argsort(-np.var(y, axis=0))[:8]].astype(np.float64)
    X = X.astype(np.float64)
    out: Rows = {}
    models = {
        "gaussian": lambda: ConditionalGaussian(shrinkage=SHRINKAGE.get(name, 0.01)),
        "ridge": lambda: MultitaskRegressor(alpha=10.0),
    }
    for kind, make in models.items():
        found: dict[str, Any] = {"ellipsoid": [], "simultaneous": [], "observed": []}
        volumes = []
        for seed in range(splits):
            train, held, test = _parts(len(X), seed // REDEALT)
            if seed % REDEALT == 0:
                model = make().fit(X[train], y[train])
                # What the regions would be without x.
                alone = MultitaskRegressor(alpha=1e12).fit(X[train], y[train])
            rest = _redealt(held, test, seed)
            held, test = rest[: len(held)], rest[len(held) :]
            known = np.where(np.arange(y.shape[1]) < y.shape[1] // 2, y[test], np.nan)
            hows: dict[str, dict[str, Any]] = {
                "ellipsoid": {},
                "simultaneous": {"kind": "intervals", "simultaneous": True},
                "observed": {"observed": known},
            }
            model.calibrate(X[held], y[held])
            for how, given in hows.items():
                each = [model.predict_region(X[test], c, **given).contains(y[test]).mean()
                        for c in LEVELS]  # fmt: skip
                found[how].append(each)
            with_x, without = (
                one.predict_region(X[test], 0.9).log_volume.mean()
                for one in (model, alone.calibrate(X[held], y[held]))
            )
            volumes.append(with_x - without)
        for how, covered in found.items():
            row = {**_by_level(covered), "splits": splits}
            if how == "ellipsoid":
                row["log_volume_per_target_less_that_without_x"] = np.mean(volumes) / y.shape[1]
            row["note"] = "bar: nominal - .005 to nominal + .02"
            out[f"coverage of regions, {how}, {kind}, {name}"] = row
    yield out


def _groups(splits: int) -> Iterator[Rows]:
    """Three captions an image: one at random calibrates, or the worst."""
    out: Rows = {}
    for how in ("random", "worst"):
        covered = []
        for seed in range(splits):
            rng = np.random.default_rng(seed)
            z = rng.normal(size=(800, 6))
            X = np.repeat(z + 0.3 * rng.normal(size=z.shape), 3, axis=0)
            y = np.repeat(z, 3, axis=0) + 0.7 * rng.standard_t(3, (2400, 6))
            groups = np.repeat(np.arange(800), 3)
            retriever = ConformalRetriever(
                CCA(), confidence=0.8, calibration_size=0.5, per_group=how, random_state=seed
            ).fit(X[:1800], y[:1800], groups=groups[:1800])
            p = retriever.p_values(X[1800:], y[1800:]).diagonal().reshape(-1, 3)
            inside = [within(p, level) for level in LEVELS]
            whole = how == "worst"
            covered.append([(i.all(axis=1) if whole else i).mean() for i in inside])
        what = "one caption" if how == "random" else "all three captions"
        note = "bar: nominal - .005 to nominal + .02; simulated"
        out[f"coverage of {what} of an image"] = {
            **_by_level(covered), "splits": splits, "note": note,
        }  # fmt: skip
    yield out


def _wrong_pairs(name: str, X: Any, y: Any, share: float, repetitions: int) -> Iterator[Rows]:
    """Planted mismatches among pairs of which 500 are known to be right."""
    out: Rows = {}
    results: dict[float, Any] = {0.1: [], 0.2: []}
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(X))
        clean, rest = order[:500], order[500:]
        at = rest[: round(share * len(rest))]
        mixed = y.copy()
        mixed[at] = y[np.roll(at, 1)]
        wrong = np.zeros(len(X), dtype=bool)
        wrong[at] = True
        table = check_pairs(
            X, mixed, clean=clean, fdr=0.1, random_state=seed,
            model=ConditionalGaussian(shrinkage=SHRINKAGE[name]),
        )  # fmt: skip
        p, verified = (table[c].to_numpy()[rest] for c in ("p_value", "verified"))
        is_wrong, bound = wrong[rest], table.attrs["share_bound"]
        for fdr, into in results.items():
            flagged = false_discoveries(p, fdr)
            into.append(
                {
                    "false_discovery_rate": (flagged & ~is_wrong).sum() / max(flagged.sum(), 1),
                    "power": (flagged & is_wrong).sum() / max(is_wrong.sum(), 1),
                    "nothing_flagged": float(not flagged.any()),
                }
            )
        results[0.1][-1] |= {
            "wrong_among_verified": (verified & is_wrong).sum() / max(verified.sum(), 1),
            "verified": verified.mean(),
            "bound_holds": float(bound >= is_wrong.mean()),
            "bound": bound,
        }
    for fdr, each in results.items():
        row = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        row |= {"repetitions": repetitions}
        row["note"] = f"500 clean pairs; bar: false discoveries at most {fdr + 0.02:.2f}" + (
            f", nothing flagged in at least {1 - fdr:.1f}" if share == 0 else ""
        ) + (", the bound holds in .9" if fdr == 0.1 else "")  # fmt: skip
        out[f"wrong pairs, {name}, {share:.0%} planted, fdr {fdr:g}"] = row
    yield out


def _matches(name: str, X: Any, y: Any) -> Iterator[Rows]:
    """The probability of a match at equal shares, each by a model that has not seen the pair."""
    model = ConditionalGaussian(shrinkage=SHRINKAGE[name])
    found = match_probability(X, y, prior=0.5, model=model, random_state=0)
    row = {"brier": found.brier, "brier_of_the_prior": found.brier_prior, "slope": found.slope}
    yield {f"match probability, {name}": row}


# --------------------------------------------------------------------- classes from their names
def _classes(quick: bool) -> Iterator[Rows]:
    for what, task, name in _tasks():
        if quick:
            X, y, labels, *classes = task
            step = len(X) // 300
            task = (few(X[::step], 300), y[::step][:300], labels[::step][:300], *classes)
        repeated = 1 if quick else 2 if name == "openclipart" else 5
        yield from _classification(what, task, name, repeated)


def _tasks() -> Iterator[tuple[str, Any, str]]:
    """What is classified; rows of x and y, labels, classes and their texts; the set."""
    emoji = load_emoji()
    names = np.unique(emoji.group)
    texts = emoji.encode_text([name.replace("&", " ").replace("-", " ") for name in names])
    task = (emoji.image, emoji.text, emoji.group, names, texts)
    yield "emoji groups by their names", task, "emoji"
    try:
        image, text, data, vectorizer = _fashion()
    except FileNotFoundError:
        return
    for attribute in ("masterCategory", "subCategory", "baseColour"):
        labels = data.attributes[:, list(data.attribute_names).index(attribute)].astype(str)
        names, counts = np.unique(labels, return_counts=True)
        common = names[counts >= 20]
        texts = vectorizer.transform(common).toarray()
        named = common[texts.any(axis=1)]  # those whose words occur in names of products
        if len(named) < 2:
            continue
        kept = np.isin(labels, named)
        task = (image[kept], text[kept], labels[kept], named, texts[texts.any(axis=1)])
        yield f"fashion {attribute} by its words", task, "fashion"
    path = Path(os.environ.get("CMSTATS_DATA", "")) / "openclipart.npz"
    if path.exists():
        yield "openclipart categories by mean texts", _openclipart(path), "openclipart"


def _openclipart(path: Path) -> Any:
    """Categories by the mean text of twenty items each, which are left out of the rest."""
    with np.load(path) as file:
        image, text = (np.float32(file[view]) for view in ("image", "text"))
        labels = file["category"].astype(str)
    image = PCA(256, random_state=0).fit_transform(image)
    order = np.random.default_rng(0).permutation(len(labels))
    names, counts = np.unique(labels, return_counts=True)
    names = names[counts >= 60]
    shown = {name: order[labels[order] == name][:20] for name in names.tolist()}
    texts = np.stack([text[at].mean(axis=0) for at in shown.values()])
    rest = np.setdiff1d(np.flatnonzero(np.isin(labels, names)), np.concatenate([*shown.values()]))
    return image[rest], text[rest], labels[rest], names, texts


def _classification(what: str, task: Any, name: str, seeds: int) -> Iterator[Rows]:
    """Accuracy and calibration without labels and with a few, beside the cosine and classifiers."""
    X, y, labels, names, texts = task
    found: dict[str, list[dict[str, float]]] = {}
    features = dict(zip(names.tolist(), texts, strict=True))
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(X))
        test, train = order[: len(X) // 4], order[len(X) // 4 :]
        gaussian = ConditionalGaussian(shrinkage=SHRINKAGE[name])
        prior = np.array([(labels[train] == c).mean() + 1e-3 for c in names])

        def tried(key: str, given: Any = None, **how: Any) -> None:
            model = PrototypeClassifier(gaussian, features, random_state=seed, **how)  # noqa: B023
            model.fit(X[train], y[train], given)  # noqa: B023
            p = model.predict_proba(X[test])  # noqa: B023
            found.setdefault(key, []).append(_judged(p, model.classes_, labels[test]))  # noqa: B023

        tried("T = 1", prior=prior, temperature=1.0, offsets=False)
        tried("T of pairs", prior=prior, offsets=False)
        tried("T of pairs and offsets", prior=prior)
        tried("T of all labels and offsets", labels[train], prior=prior, prior_strength=np.inf)
        for shots in (1, 2, 5, 10, 50):
            few = np.full(len(train), None, dtype=object)
            for c in names:
                few[np.flatnonzero(labels[train] == c)[:shots]] = c
            tried(f"{shots} labelled a class", few, prior=prior)
        cca = CCA(shrinkage=SHRINKAGE[name]).fit(X[train], y[train])
        cosine = cca.similarity(X[test], texts, kind="cosine")
        right = names[cosine.argmax(axis=1)] == labels[test]
        found.setdefault("cosine of CCA", []).append({"accuracy": right.mean()})
        semantic = SemanticMatching(random_state=seed).fit(X[train], y[train], labels[train])
        p = semantic.embed(X[test])
        judged = _judged(p, semantic.classes_, labels[test])
        found.setdefault("SemanticMatching, x, all labels", []).append(judged)
    for key, each in found.items():
        row = {k: float(np.mean([one[k] for one in each])) for k in each[0]}
        row |= {"splits": seeds, "classes": len(names)}
        yield {f"{what}: {key}": row}


def _judged(p: Any, classes: Any, labels: Any) -> dict[str, float]:
    right = classes[p.argmax(axis=1)] == labels
    error = expected_calibration_error(p, labels, classes=classes)
    return {"accuracy": float(right.mean()), "calibration_error": error}
