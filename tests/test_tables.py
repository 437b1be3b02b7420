"""Every table that is printed fits 80 columns, with all of its columns."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cmstats import (
    CCA,
    ConditionalGaussian,
    CrossModalRetriever,
    MultitaskRegressor,
    check_pairs,
    compare,
    retrieval_report,
)
from cmstats.inference import (
    bootstrap,
    canonical_correlation_test,
    component_stability,
    correlation_intervals,
    loadings_table,
    permutation_test,
    redundancy,
)
from cmstats.metrics.tables import Table

RNG = np.random.default_rng(0)
Z = RNG.normal(size=(90, 3))
X = pd.DataFrame(
    Z @ RNG.normal(size=(3, 5)) + RNG.normal(size=(90, 5)),
    columns=[f"a_feature_with_a_name_{i}" for i in range(5)],
)
Y = pd.DataFrame(Z @ RNG.normal(size=(3, 4)) + RNG.normal(size=(90, 4)), columns=list("abcd"))
FITTED = CCA().fit(X, Y)
MODELS = {
    "CCA": CCA(2),
    "ridge": MultitaskRegressor(alpha=1.0),
    "gauss": ConditionalGaussian(shrinkage=0.1),
}

TABLES: dict[str, Callable[[], Any]] = {
    "retrieval": lambda: retrieval_report(*FITTED.embed(X, Y)),
    "tests": lambda: canonical_correlation_test(FITTED),
    "loadings": lambda: loadings_table(FITTED),
    "redundancy": lambda: redundancy(FITTED),
    "permutations": lambda: permutation_test(X, Y, n_permutations=9, statistic="all"),
    "intervals": lambda: correlation_intervals(X, Y),
    "stability": lambda: component_stability(CCA(2), X, Y, n_resamples=5),
    "bootstrap": lambda: bootstrap(CCA(1), X, Y, "x_loadings_", n_resamples=9, random_state=0),
    "compare": lambda: compare(MODELS, X, Y, cv=2),
    "suspects": lambda: check_pairs(X, Y, random_state=0),
    "candidates": lambda: CrossModalRetriever(time_budget=0.1, cv=2).fit(X, Y).results_,
}


@pytest.mark.ordinary
@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_80_columns_and_shows_all_of_its_own(name: str) -> None:
    table = TABLES[name]()
    with pd.option_context("display.width", 80, "display.max_columns", 0):
        text = str(table)
    assert max(map(len, text.splitlines())) <= 80
    frame = table if isinstance(table, pd.DataFrame) else table.to_frame()
    for column in frame.columns:
        assert str(column[-1] if isinstance(column, tuple) else column) in text
    if frame.shape[1] > 8:
        assert "0000" not in text.replace("1.0000", "")  # rounded
        assert " ... " not in frame._repr_html_()


def test_a_table_is_a_frame() -> None:
    wide = Table(np.arange(60.0).reshape(3, 20) / 7)
    assert isinstance(wide.iloc[:, :2], pd.DataFrame)
    assert isinstance(wide * 2, Table)
    pd.testing.assert_frame_equal(
        pd.DataFrame(pickle.loads(pickle.dumps(wide))), pd.DataFrame(wide)
    )
    narrow = Table({"a": [1.0, 0.123456789]})
    assert str(narrow) == str(pd.DataFrame(narrow))
    long = Table(np.ones((500, 20)))
    assert len(str(long).splitlines()) < 200
