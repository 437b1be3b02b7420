"""Labels of rows: the same in another order, or some of them, never pair rows by position."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest

from .registry import Model, every, fitted
from .rows import N, Rows

ORDER = np.random.default_rng(3).permutation(N)
two_views = lambda m: len(m.rows(5).views) > 1  # noqa: E731


def labelled(rows: Rows, **indexes: Any) -> Rows:
    """Frames with an index of labels, "s0", "s1", ... unless another is given for a view."""
    views = {}
    for name, a in rows.views.items():
        index = indexes.get(name, [f"s{i}" for i in range(len(a))])
        views[name] = pd.DataFrame(
            a, index=index, columns=[f"{name}{j}" for j in range(a.shape[1])]
        )
    return Rows(views, rows.labels)


def last_of(rows: Rows) -> str:
    return list(rows.views)[-1]


@every(two_views, variants=False)
def test_labels_in_another_order_are_refused(model: Model) -> None:
    rows = labelled(model.rows())
    last = last_of(rows)
    mixed = rows.but(last, rows.views[last].iloc[ORDER])
    for method in ("fit", "partial_fit") if model.partial else ("fit",):
        with pytest.raises(ValueError, match=r"have the labels of .* in another order.*\.index\]"):
            model.fit(mixed, None, model.make(), method)
    est = model.fit(rows)
    if model.score:
        with pytest.raises(ValueError, match="in another order"):
            model.score_of(est, mixed)
    for name in ("transform", "embed", "similarity", "fuse", "logpdf", "outlier_scores"):
        if model.has(name):
            with pytest.raises(ValueError, match=r"in another order|has no encoder of y"):
                getattr(est, name)(*model.args(mixed))


@every(two_views, variants=False)
def test_labels_of_which_some_are_shared_are_refused(model: Model) -> None:
    rows = labelled(model.rows())
    last = last_of(rows)
    some = {k: v.iloc[:-5] if k == last else v.iloc[5:] for k, v in rows.views.items()}
    labels = None if rows.labels is None else rows.labels[5:]
    with pytest.raises(ValueError, match=f"{N - 10} of the {N - 5} labels.*intersection"):
        model.fit(Rows(some, labels))


@every(two_views, variants=False)
def test_labels_with_nothing_in_common_and_ranges_are_positions(model: Model) -> None:
    plain = model.rows()
    last = last_of(plain)
    expected = model.calls(fitted(model), plain.take(slice(0, 9)))
    for index in (np.arange(N) + 1000, pd.RangeIndex(7, N + 7), [f"t{i}" for i in range(N)]):
        found = model.fit(labelled(plain, **{last: index}))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rows without names
            model.compare(model.calls(found, plain.take(slice(0, 9))), expected, 1e-9)


@every(lambda m: m.weights, variants=False)
def test_weights_are_paired_by_label_too(model: Model) -> None:
    rows = labelled(model.rows())
    weights = pd.Series(np.ones(N), index=next(iter(rows.views.values())).index[ORDER])
    with pytest.raises(ValueError, match=r"sample_weight have the labels of .* in another order"):
        model.fit(rows, weights)


@every(two_views, variants=False)
def test_a_column_of_ids_in_another_order_is_refused(model: Model) -> None:
    polars = pytest.importorskip("polars")
    rows = model.rows()
    last = last_of(rows)
    views = {}
    for name, a in rows.views.items():
        ids = ORDER if name == last else np.arange(N)
        views[name] = polars.DataFrame({**{f"{name}{j}": c for j, c in enumerate(a.T)}, "id": ids})
    with pytest.raises(ValueError, match=r"same ids in another order.*join\(\w+, on='id'\)"):
        model.fit(Rows(views, rows.labels))


@every(two_views, variants=False)
def test_a_column_that_two_views_share_is_warned_of(model: Model) -> None:
    rows = model.rows()
    ids = np.arange(float(N))[:, None] * 0.1
    with pytest.warns(UserWarning, match=r"column \d+ of \w+ and column \d+ of \w+ are equal"):
        model.fit(rows.map(lambda a: np.hstack([a, ids])))
