"""MultiviewCCA: three-view retrieval against CCA on the same splits, four views of MNIST."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import KFold
from sklearn.preprocessing import OneHotEncoder

from benchmarks._data import few
from benchmarks._measure import Rows, ratio
from cmstats import CCA, MultiviewCCA, load_emoji, retrieval_report
from cmstats.datasets import load_fashion, load_mnist_halves, load_wikipedia

MODELS = ("CCA", "mcca", "gcca")
KINDS = (
    {"kind": "weighted_cosine", "power": 1.0},
    {"kind": "weighted_cosine", "power": 2.0},
    {"kind": "eigenvalue_cosine", "power": 4.0},
)


def run(*, quick: bool) -> Iterator[Rows]:
    """All measurements of this suite."""
    warnings.simplefilter("ignore")
    shrinkages = (0.3,) if quick else (0.03, 0.1, 0.3, 0.6)
    for load in (_emoji, _fashion, _wikipedia):
        try:
            name, metric, components, train, test, labels = load()
        except FileNotFoundError as error:
            yield {f"not run: {load.__name__[1:]}": {"note": str(error)}}
            continue
        if quick:
            train, test = (tuple(few(a, n) for a in v) for n, v in ((240, train), (60, test)))
            labels = labels[0][:240], labels[1][:60]
        for model in MODELS:
            grid = list(itertools.product(components[: 1 if quick else None], shrinkages))
            row = _retrieval(model, metric, train, test, labels, grid)
            yield {f"{name}, {_label(model)}": row}
    try:
        yield _mnist_quarters(quick)
    except FileNotFoundError as error:
        yield {"not run: MNIST quarters": {"note": str(error)}}
    yield _against_cca_zoo(1000 if quick else 20_000)


def _label(model: str) -> str:
    return "CCA of image and text" if model == "CCA" else f"MultiviewCCA {model} with labels"


def _one_hot(labels: Any, train: Any, rows: Any) -> Any:
    """Labels as a view: one column for each value that occurs in training."""
    labels = np.asarray(labels).reshape(len(labels), -1)
    encoder = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(labels[train])
    return encoder.transform(labels[rows])


def _emoji() -> tuple[Any, ...]:
    emoji = load_emoji()
    a, b = emoji.train, emoji.test
    train = (emoji.image[a], emoji.text[a], _one_hot(emoji.subgroup, a, a))
    test = (emoji.image[b], emoji.text[b])
    return (
        "emoji, label = subgroup",
        "R@10",
        (20, 50, 100),
        train,
        test,
        (emoji.group[a], emoji.group[b]),
    )


def _fashion() -> tuple[Any, ...]:
    fashion = load_fashion()
    a, b = fashion.train, fashion.test
    words = TfidfVectorizer(min_df=2, ngram_range=(1, 2)).fit(fashion.names[a])
    text = words.transform(fashion.names).toarray().astype(np.float32)
    train = (fashion.image[a], text[a], _one_hot(fashion.attributes, a, a))
    test = (fashion.image[b], text[b])
    kinds = fashion.attributes[:, fashion.attribute_names.index("subCategory")]
    return "fashion, label = 8 attributes", "R@10", (20, 50, 100), train, test, (kinds[a], kinds[b])


def _wikipedia() -> tuple[Any, ...]:
    wiki = load_wikipedia()
    every = slice(None)
    train = (wiki.image_train, wiki.text_train, _one_hot(wiki.labels_train, every, every))
    test = (wiki.image_test, wiki.text_test)
    labels = (wiki.labels_train, wiki.labels_test)
    return "Wikipedia, label = category", "mAP", (5, 9), train, test, labels


def _fitted(model: str, k: int, s: float, train: Any) -> Any:
    if model == "CCA":
        return CCA(k, shrinkage=s).fit(*train[:2])
    return MultiviewCCA(k, method=model, shrinkage=s).fit(list(train))


def _report(model: Any, pair: Any, labels: Any, kind: dict[str, Any]) -> Any:
    given = pair if isinstance(model, CCA) else ([*pair, None],)
    U, V = model.embed(*given, **kind)[:2]
    return retrieval_report(U, V, labels=labels)


def _retrieval(
    model: str,
    metric: str,
    train: Any,
    test: Any,
    labels: Any,
    grid: list[tuple[int, float]],
) -> dict[str, Any]:
    """Test retrieval with the parameters chosen by three folds of the training items."""
    kinds = KINDS[:2] if model == "CCA" else KINDS
    scores: dict[Any, list[float]] = {}
    for part, held in _folds(train, labels[0]):
        (rows, _), (rest, known) = part, held
        for k, s in grid:
            fitted = _fitted(model, k, s, rows)
            for i, kind in enumerate(kinds):
                found = _report(fitted, rest[:2], known, kind)[metric]
                scores.setdefault((k, s, i), []).append(float(found.iloc[-1]))
    k, s, i = max(scores, key=lambda key: np.mean(scores[key]))
    report = _report(_fitted(model, k, s, train), test, labels[1], kinds[i])
    image, text, mean = (float(v) for v in report[metric])
    return {
        f"{metric} mean": mean,
        "image query": image,
        "text query": text,
        **({} if metric == "mAP" else {"mAP by class": float(report["mAP"].iloc[-1])}),
        "note": f"{k} components, shrinkage {s}, {kinds[i]['kind']} power {kinds[i]['power']:g}: "
        "chosen in 3 folds of the training items; labels in training only",
    }


def _folds(train: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
    splits = KFold(3, shuffle=True, random_state=0).split(train[0])
    for both in splits:
        yield tuple((tuple(v[at] for v in train), labels[at]) for at in both)


def _quarters(left: Any, right: Any) -> list[Any]:
    """Top and bottom of both halves: four views of 14 x 14 pixels."""
    return [h for half in (left, right) for h in (half[:, :196], half[:, 196:])]


def _mnist_quarters(quick: bool) -> dict[str, Any]:
    data = load_mnist_halves()
    n, k = (300, 10) if quick else (60_000, 50)
    train = _quarters(data.left_train[:n], data.right_train[:n])
    test = _quarters(data.left_test, data.right_test)
    if quick:
        train, test = ([few(v, n) for v in views] for views in (train, test))
    out = {}
    for method in ("mcca", "gcca"):
        model = MultiviewCCA(k, method=method, shrinkage="cv").fit(train)
        missing = [test[0], test[1], test[2], None]
        error = np.mean((model.predict(missing)[3] - test[3]) ** 2)
        out[f"MNIST quarters, four views, {k} components, {method}"] = {
            "total mean pairwise test correlation": k * model.score(test),
            "R2 of a missing quarter": float(1 - error / np.var(test[3], axis=0).mean()),
            "note": f"shrinkage {model.shrinkage_[0]:g} by cross-validation on training digits",
        }
    pairs = [
        k * CCA(k, shrinkage="cv").fit(train[i], train[j]).score(test[i], test[j])
        for i, j in itertools.combinations(range(4), 2)
    ]
    out[f"MNIST quarters, six CCAs of two views, {k} components"] = {
        "total mean pairwise test correlation": float(np.mean(pairs)),
        "note": "each pair with weights of its own; the variates of a view are uncorrelated in CCA "
        "and not quite with more views, so that the totals are not on one scale",
    }
    return out


def _against_cca_zoo(n: int) -> dict[str, Any]:
    try:
        from cca_zoo.linear import GCCA, MCCA
    except ImportError:
        return {}
    rng = np.random.default_rng(0)
    z = rng.standard_normal((n, 20))
    views = [z @ rng.standard_normal((20, p)) + rng.standard_normal((n, p)) for p in (256, 192, 64)]
    out = {}
    for method, peer in (("mcca", MCCA), ("gcca", GCCA)):
        row: dict[str, Any] = ratio(
            lambda: peer(10, shrinkage=0.1).fit(views),  # noqa: B023
            lambda: MultiviewCCA(10, method=method, shrinkage=0.1).fit(views),  # noqa: B023
            repeats=3,
        )
        row["note"] = "shrinkage 0.1; ratio: how many times faster"
        out[f"cca-zoo {peer.__name__} / MultiviewCCA, {n} x (256, 192, 64)"] = row
    return out
