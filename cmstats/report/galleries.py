"""Galleries of example queries: texts and pictures with the items that they retrieve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cmstats.arrays import to_numpy
from cmstats.metrics.retrieval import search
from cmstats.model_selection.retriever import CrossModalRetriever
from cmstats.plotting.display import spread
from cmstats.report.findings import Gallery, Indices, Thing

__all__ = ["example_galleries"]


def example_galleries(
    retriever: CrossModalRetriever,
    X: Any,
    Y: Any,
    test: Indices,
    names: Sequence[str] | None,
    pictures: Any,
    queries: tuple[Sequence[str], Any] | None,
) -> list[Gallery]:
    """Typed queries, if any, and held-out items as queries in both directions.

    Empty without names and pictures of the items.
    """
    if names is None or pictures is None:
        return []
    u, v = retriever.embed(X, Y)
    shown = np.asarray(pictures(test) if callable(pictures) else pictures[test])
    words = [str(names[i]) for i in test]
    image = [Thing(word, pixels) for word, pixels in zip(words, shown, strict=True)]
    text = [Thing(word) for word in words]
    galleries = []
    if queries is not None:
        asked = [Thing(str(query)) for query in queries[0]]
        typed = retriever.embed(y=queries[1])
        note = "The first pictures among the held-out items for words typed by a person."
        galleries.append(Gallery("Typed words", note, _found(typed, u, asked, image, None)))
    some = spread(len(test), 9)[:-1]
    note = "A framed result is the partner. The queries are spread evenly over the held-out items."
    for title, Q, C, asked, found in (
        ("Texts find pictures", v, u, text, image),
        ("Pictures find texts", u, v, image, text),
    ):
        rows = _found(Q[some], C, [asked[i] for i in some], found, some)
        galleries.append(Gallery(title, note, rows))
    return galleries


def _found(
    Q: Any, C: Any, asked: list[Thing], candidates: list[Thing], partners: Any, k: int = 8
) -> list[tuple[Thing, list[Thing]]]:
    """The k best candidates of each query, marked where they are its partner."""
    indices = to_numpy(search(Q, C, k)[0])
    rows = []
    for i, query in enumerate(asked):
        things = [candidates[j] for j in indices[i]]
        if partners is not None:
            hits = indices[i] == partners[i]
            things = [Thing(t.text, t.pixels, bool(h)) for t, h in zip(things, hits, strict=True)]
        rows.append((query, things))
    return rows
