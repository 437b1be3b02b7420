"""The fold of each row, from a number of folds or a scikit-learn splitter."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

__all__ = ["fold_ids"]


def fold_ids(cv: Any, n: int, *, y: Any = None, groups: Any = None) -> np.ndarray[Any, Any]:
    """The fold of each of n rows, shape (n,).

    Raises
    ------
    ValueError
        If the splits do not part the rows into at least two folds that are not empty.
    """
    if isinstance(cv, (int, np.integer)) and not isinstance(cv, bool):
        if not 2 <= cv <= n:
            raise ValueError(f"cv={cv} folds of {n} rows: at least 2 and at most {n} are possible")
        return np.arange(n) % int(cv)
    splitter = check_cv(cv)
    ids = np.full(n, -1)
    number = 0
    target = None if y is None or not hasattr(y, "shape") else y
    for number, (train, test) in enumerate(splitter.split(np.zeros((n, 1)), target, groups)):
        train, test = (
            np.flatnonzero(s) if np.asarray(s).dtype == bool else s for s in (train, test)
        )
        if len(train) + len(test) != n or (ids[test] >= 0).any() or np.isin(test, train).any():
            raise ValueError(
                "cv must part the rows: every row in one test set, and each training set all "
                "other rows (KFold, GroupKFold, ... do; ShuffleSplit and repeats do not: use "
                "scikit-learn's GridSearchCV for those)"
            )
        ids[test] = number
    if (ids < 0).any() or number < 1 or 0 in np.bincount(ids, minlength=number + 1):
        raise ValueError(
            "cv must part the rows: every row in one test set, at least two folds and none empty"
        )
    return ids
