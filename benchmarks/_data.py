"""Paired data sets with a split, for the suites that compare models on real data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.datasets import load_emoji, load_fashion, load_wikipedia


@dataclass(frozen=True)
class Split:
    """Two views of the training and of the test items, and the labels of the test items."""

    x: Any
    y: Any
    x_test: Any
    y_test: Any
    labels: Any
    labels_test: Any

    def few(self) -> Split:
        """Few rows and columns of it, for quick runs."""
        views = (self.x, self.y, self.x_test, self.y_test)
        x, y, x_test, y_test = (few(a, n) for a, n in zip(views, (240, 240, 60, 60), strict=True))
        return Split(x, y, x_test, y_test, self.labels[:240], self.labels_test[:60])


def few(a: Any, rows: int) -> Any:
    """The first rows of a matrix and at most 50 columns, evenly spaced."""
    return a[:rows, :: max(1, a.shape[1] // 40)][:, :50]


def emoji(seed: int) -> Split:
    data = load_emoji()
    order = np.random.default_rng(seed).permutation(len(data.image))
    return _cut(data.image, data.text, data.group, order[468:], order[:468])


def wikipedia(seed: int) -> Split:
    """Seed 0 is the published split; other seeds draw a random split of the same sizes."""
    data = load_wikipedia()
    x, y, labels = (
        np.concatenate([data[f"{what}_train"], data[f"{what}_test"]])
        for what in ("image", "text", "labels")
    )
    order = np.arange(len(x)) if seed == 0 else np.random.default_rng(seed).permutation(len(x))
    return _cut(x, y, labels, order[:2173], order[2173:])


def fashion(seed: int) -> Split:
    """CLIP image features and TF-IDF of the name, with the vocabulary of the training items."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    data = load_fashion()
    order = np.random.default_rng(seed).permutation(len(data.image))
    train, test = order[:1500], order[1500:]
    vectorizer = TfidfVectorizer(min_df=2, dtype=np.float32).fit(data.names[train])
    text = vectorizer.transform(data.names).toarray()
    image = data.image / np.linalg.norm(data.image, axis=1, keepdims=True)
    category = (
        list(data.attribute_names).index("subCategory")
        if ("subCategory" in data.attribute_names)
        else 0
    )
    return _cut(image, text, data.attributes[:, category], train, test)


def _cut(x: Any, y: Any, labels: Any, train: Any, test: Any) -> Split:
    return Split(x[train], y[train], x[test], y[test], labels[train], labels[test])


def available(*, quick: bool = False) -> dict[str, Callable[[int], Split]]:
    """The available sets: emoji always, the others if they are in CMSTATS_DATA."""
    if quick:
        return {
            name: lambda seed, load=load: load(seed).few() for name, load in available().items()
        }
    found: dict[str, Callable[[int], Split]] = {"emoji": emoji}
    for name, load in (("wikipedia", wikipedia), ("fashion", fashion)):
        try:
            load(0)
        except FileNotFoundError:
            continue
        found[name] = load
    return found
