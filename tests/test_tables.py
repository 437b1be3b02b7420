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
    PLS,
    ConditionalGaussian,
    ConditionalGaussianMixture,
    CrossModalRetriever,
    MultitaskRegressor,
    OrthogonalMap,
    SparseCCA,
    check_pairs,
    compare,
    retrieval_report,
    suggest_models,
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
from cmstats.metrics.tables import Table, digits
from cmstats.model_selection.comparison import learning_curves

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

SPARSE = SparseCCA(2, alpha=0.05).fit(X, Y)
SAME = X + 1.0 * RNG.normal(size=X.shape)  # as wide as X: where views are mapped or compared
FAMILY = {
    "PLS": PLS(2),
    "SparseCCA": SparseCCA(1, alpha=0.05),
    "OrthogonalMap": OrthogonalMap(),
    "a mixture of two Gaussians": ConditionalGaussianMixture(2, tol=1.0, random_state=0),
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
    "sparse loadings": lambda: loadings_table(SPARSE),
    "sparse redundancy": lambda: redundancy(SPARSE),
    "PLS stability": lambda: component_stability(PLS(2), X, Y, n_resamples=3),
    "PLS bootstrap": lambda: bootstrap(PLS(1), X, Y, "x_weights_", n_resamples=3, random_state=0),
    "map bootstrap": lambda: bootstrap(
        OrthogonalMap(), X, SAME, "coef_", n_resamples=3, random_state=0
    ),
    "family": lambda: compare(FAMILY, X, SAME, cv=2),
    "few of many": lambda: retrieval_report(RNG.normal(size=(999, 2)), RNG.normal(size=(999, 2))),
    "with gaps": lambda: permutation_test(
        X.mask(X > 2), Y, missing="em", statistic="all", n_permutations=9
    ),
    "curves": lambda: learning_curves(MODELS, X, Y, cv=2, sizes=[20, 40]),
    "candidates": lambda: CrossModalRetriever(time_budget=0.1, cv=2).fit(X, Y).results_,
}


@pytest.mark.slow
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


def test_suggestions_fit_too() -> None:
    text = str(suggest_models(X, SAME))
    assert max(map(len, text.splitlines())) <= 80
    assert "how well held-out partners are found." in " ".join(text.split())


def test_a_table_that_just_does_not_fit_is_rounded_and_not_parted() -> None:
    names = ["R@1", "R@5", "R@10", "median_rank", "MRR", "mAP", "n_queries", "n_candidates"]
    values = [[0.012345, 0.05432, 0.012345, 34.5, 0.076464, 0.076464, 200, 200]] * 3
    text = str(Table(values, index=["x -> y", "y -> x", "mean"], columns=names))
    assert len(text.splitlines()) == 4
    assert "0.0765" in text
    tiny = str(Table([[1.234e-5] * 4 + [0.000123456] * 4] * 2, columns=names))
    assert "1.234e-05" in tiny
    assert "0.0001235" in tiny


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


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500"), (230.4, "230.4"), (12345.6, "12346"), (0.41236, "0.4124"), (1.0, "1"),
     (-0.1, "-0.100"), (1e-7, "1e-07"), (0.0, "0"), (float("nan"), "nan"), (float("inf"), "inf")],
)  # fmt: skip
def test_numbers_are_printed_as_a_reader_expects(value: float, text: str) -> None:
    assert digits(value) == text
