"""The order of the rows changes nothing, but for the folds to which they are dealt."""

from __future__ import annotations

import numpy as np

from .registry import Model, every, fitted


@every(lambda m: not m.seeded)
def test_the_order_of_rows_changes_nothing(model: Model) -> None:
    rows = model.rows()
    order = np.arange(len(rows))
    ids = np.zeros(len(rows)) if model.folds is None else model.fold_ids(len(rows))
    rng = np.random.default_rng(4)
    for fold in np.unique(ids):  # each row stays in its fold
        order[ids == fold] = rng.permutation(order[ids == fold])
    found = model.fit(rows.take(order))
    expected = model.outcome(fitted(model), rows)
    model.compare(model.outcome(found, rows), expected, 1e-9)
