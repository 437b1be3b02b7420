"""Rows that depend on rows of other folds: captions, copies, time; what groups and folds do."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.model_selection import KFold

from cmstats import (
    CCA,
    CrossModalRetriever,
    MomentsSearchCV,
    MultitaskRegressor,
    check_pairs,
    compare,
    load_emoji,
)
from cmstats.inference import correlation_intervals
from cmstats.rows.dependence import dependence_notes
from cmstats.rows.splits import deal

COPIES, NEIGHBOURS = "have an exact copy in another fold", "neighbouring rows of"
IMAGE_OF = np.repeat(np.arange(80), 5)


def captions(noise: float = 0.0, seed: int = 0) -> tuple[Any, Any]:
    """80 images, and 5 captions of each that have nothing to do with it."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(80, 20))[IMAGE_OF] + noise * rng.normal(size=(400, 20))
    return X, rng.normal(size=(80, 12))[IMAGE_OF] + 0.5 * rng.normal(size=(400, 12))


def in_time(n: int = 400, p: int = 6, memory: float = 0.9, seed: int = 0) -> Any:
    z = np.random.default_rng(seed).normal(size=(n, p))
    for t in range(1, n):
        z[t] += memory * z[t - 1]
    return z


def noted(X: Any, cv: Any = 5, groups: Any = None) -> str:
    n = X.shape[0]
    return " ".join(dependence_notes({"x": X}, deal(cv, n, groups=groups)))


def said(call: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if re.search(f"{COPIES}|{NEIGHBOURS}", str(w.message))]


def test_groups_take_away_what_captions_of_one_image_share() -> None:
    X, Y = captions()
    with pytest.warns(UserWarning, match=COPIES):
        leaking = CCA(shrinkage="cv").fit(X, Y)
    kept = CCA(shrinkage="cv").fit(X, Y, groups=IMAGE_OF)
    assert leaking.cv_scores_.mean(axis=1).max() > 0.4
    assert abs(kept.cv_scores_.mean(axis=1)).max() < 0.1


def test_copies_are_noticed_wherever_they_stand() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(301, 9)).astype(np.float32)
    for X in (
        np.repeat(rows, 3, axis=0),
        np.tile(rows, (3, 1)),
        np.concatenate([rows, rows[:60]]),
        scipy.sparse.csr_matrix(np.tile(rows, (3, 1))),
        np.repeat(rng.integers(0, 256, (301, 64), dtype=np.uint8), 3, axis=0),
        np.tile(rng.normal(size=(13001, 2)), (3, 1)),
    ):
        assert COPIES in noted(X)
    assert noted(np.repeat(rows, 3, axis=0), groups=np.repeat(np.arange(301), 3)) == ""
    assert noted(np.tile(rows[:300], (3, 1))) == ""  # copies are in the same fold


@pytest.mark.torch
def test_copies_in_torch_and_on_a_disk(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", exc_type=ImportError)
    X = np.repeat(np.random.default_rng(0).normal(size=(301, 9)), 3, axis=0)
    assert COPIES in noted(torch.asarray(X))
    np.save(tmp_path / "x.npy", X)
    assert COPIES in noted(np.load(tmp_path / "x.npy", mmap_mode="r"))


@pytest.mark.parametrize("memory", [0.8, 0.95])
def test_neighbours_in_time_are_noticed(memory: float) -> None:
    X = in_time(memory=memory)
    assert NEIGHBOURS in noted(X)
    assert noted(X, KFold(5)) == ""
    assert noted(X, groups=np.arange(400) // 40) == ""
    X, _ = captions(noise=0.2)
    assert NEIGHBOURS in noted(X)


def test_independent_rows_are_not() -> None:
    classes = np.eye(10)
    for load in (load_iris, load_digits, load_breast_cancer):
        X, y = load(return_X_y=True)
        at = np.argsort(y, kind="stable")
        for rows in (X, X[at], classes[y], classes[y[at]], y[at][:, None]):
            assert noted(rows) == ""
    for view in load_emoji(return_X_y=True):
        assert noted(view) == ""
    for seed in range(60):
        rng = np.random.default_rng(seed)
        n, p = rng.integers(40, 1500), rng.integers(1, 7)
        X = rng.standard_t(2, size=(n, p)) if seed % 2 else rng.normal(size=(n, p))
        assert noted(np.round(2 * X) if seed % 3 else X) == ""


@pytest.mark.slow
def test_it_is_said_once_wherever_rows_are_split() -> None:
    X, Y = in_time(p=6), in_time(p=5, seed=1)
    batches = [(X[i : i + 100], Y[i : i + 100]) for i in range(0, 400, 100)]
    grid = {"shrinkage": [0.1, 0.5], "solver": ["moments", "svd"]}
    for call in (
        lambda: CCA(shrinkage="cv").fit(X, Y),
        lambda: CCA(shrinkage="cv").fit(iter(batches)),
        lambda: CCA(shrinkage="cv").partial_fit(*batches[0]).partial_fit(*batches[1]),
        lambda: MultitaskRegressor(alpha="cv").fit(X, Y),
        lambda: MomentsSearchCV(CCA(), grid).fit(X, Y),
        lambda: correlation_intervals(X, Y),
        lambda: compare({"CCA": CCA(1)}, X, Y, cv=2, memory=False),
        lambda: CrossModalRetriever(time_budget=0, cv=2, random_state=0).fit(X, Y),
        lambda: check_pairs(X, Y, random_state=0),
    ):
        assert len(said(call)) == 1
    for call in (
        lambda: CCA(shrinkage=0.1).fit(X, Y),
        lambda: CCA(shrinkage="cv").fit(X, Y, groups=np.arange(400) // 40),
        lambda: correlation_intervals(X, Y, groups=np.arange(400) // 10),
        lambda: CrossModalRetriever(time_budget=0, cv=2, random_state=0).fit(
            X, Y, groups=np.arange(400) // 40
        ),
    ):
        assert said(call) == []
