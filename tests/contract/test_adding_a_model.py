"""Adding a model: an equation of a few lines gets fits of all kinds, searches and outputs.

The steps are those of CONTRIBUTING.md. The model, PLS by the singular value decomposition of the
cross-covariance, is written here and enrolled by one entry: the properties imported below run on
it, and on nothing else, in this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from sklearn.utils._param_validation import Interval
from sklearn.utils.estimator_checks import parametrize_with_checks

from cmstats import MomentsSearchCV, compare, write_shards
from cmstats.kernels.linalg import leading_svd, signs
from cmstats.models.base import MomentsModel
from cmstats.models.latent import LatentViews

from .properties import *  # noqa: F403
from .registry import Model
from .rows import unlabelled


@dataclass(frozen=True)
class Directions:
    x_mean_: Any
    y_mean_: Any
    x_weights_: Any
    y_weights_: Any
    covariances_: Any
    n_components_: int
    notes: tuple[str, ...] = ()


class LeadingCovariance(LatentViews, MomentsModel):
    """max a'S_xy b  s.t.  |a| = |b| = 1: the SVD of the cross-covariance (Tucker 1958)."""

    _parameter_constraints: ClassVar = {
        "n_components": [Interval(Integral, 1, None, closed="left")]
    }

    def __init__(self, n_components: int = 1) -> None:
        self.n_components = n_components

    def _solve(self, m: Any) -> Directions:
        U, s, Vt = leading_svd(m.cov("x", "y"), self.n_components)
        sign = signs(U)
        return Directions(m.mean("x"), m.mean("y"), sign * U, sign * Vt.mT, s, int(s.shape[0]))

    def _score(self, moments: Any, model: Directions) -> float:
        return float(moments.paired_correlations("x", "y", model.x_weights_, model.y_weights_)[0])


MODELS = [Model("pls-svd", LeadingCovariance, main=True)]


@pytest.fixture(scope="module")
def views() -> tuple[Any, Any]:
    rows = unlabelled(200)
    return rows.x, rows.y


def test_it_is_the_svd_of_the_cross_covariance(views: Any) -> None:
    X, y = views
    pls = LeadingCovariance(2).fit(X, y)
    S = (X - X.mean(0)).T @ (y - y.mean(0)) / (len(X) - 1)
    np.testing.assert_allclose(pls.covariances_, np.linalg.svd(S)[1][:2], rtol=1e-10)


def test_it_is_searched(views: Any) -> None:
    search = MomentsSearchCV(LeadingCovariance(), {"n_components": [1, 2]}, cv=4).fit(*views)
    assert search.cv_results_["mean_test_score"].shape == (2,)
    assert (
        search.best_estimator_.transform(views[0]).shape[1] == search.best_params_["n_components"]
    )


def test_it_is_compared(views: Any) -> None:
    table = compare({"pls": LeadingCovariance(2)}, *views, cv=3)
    assert "pls" in table.index


def test_it_is_fitted_to_shards(views: Any, tmp_path: Path) -> None:
    X, y = views
    shards = write_shards(tmp_path, [views], rows=64)
    found = LeadingCovariance().fit(*shards)
    np.testing.assert_allclose(
        found.covariances_, LeadingCovariance().fit(X, y).covariances_, rtol=1e-12
    )


def test_it_is_fitted_to_dask_arrays_and_transforms_them(views: Any) -> None:
    da = pytest.importorskip("dask.array")
    X, y = views
    lazy = [da.from_array(a, chunks=(50, -1)) for a in views]
    found, expected = LeadingCovariance().fit(*lazy), LeadingCovariance().fit(X, y)
    np.testing.assert_allclose(found.covariances_, expected.covariances_, rtol=1e-12)
    np.testing.assert_allclose(
        found.transform(lazy[0]).compute(), expected.transform(X), rtol=1e-9, atol=1e-12
    )


def test_it_returns_frames(views: Any) -> None:
    X, y = (pd.DataFrame(a, index=range(10, 210)).add_prefix(n) for a, n in zip(views, "xy"))  # noqa: B905
    out = LeadingCovariance(2).set_output(transform="pandas").fit(X, y).transform(X)
    assert list(out.columns) == ["leadingcovariance0", "leadingcovariance1"]
    assert out.index.equals(X.index)


@parametrize_with_checks([LeadingCovariance()])
def test_scikit_learn_contract(estimator: Any, check: Any) -> None:
    check(estimator)
