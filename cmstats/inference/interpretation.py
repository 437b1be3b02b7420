"""Interpretation of a canonical correlation analysis: loadings, communality, redundancy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmstats.arrays import to_numpy
from cmstats.inference.fitted import component_index, feature_names, inner_model, total_moments
from cmstats.metrics.tables import as_table

__all__ = ["loadings_table", "redundancy"]


def loadings_table(cca: Any) -> pd.DataFrame:
    r"""Weights, loadings and cross-loadings of every variable, and its explained variance.

    With :math:`u_k`, :math:`v_k` the variates of the two views, variable :math:`x_j` has

    .. math:: l_{jk} = \operatorname{corr}(x_j, u_k), \quad
        c_{jk} = \operatorname{corr}(x_j, v_k), \quad
        h_{jk} = R^2(x_j; u_1, \dots, u_k), \quad R^2_{jk} = R^2(x_j; v_1, \dots, v_k)

    (loading, cross-loading, communality and squared multiple correlation with the other view);
    without shrinkage :math:`h_{jk} = \sum_{i \le k} l_{ji}^2` and
    :math:`R^2_{jk} = \sum_{i \le k} c_{ji}^2`, since the variates of a view are uncorrelated.

    Parameters
    ----------
    cca : fitted CCA, or a search or pipeline around one
        A model with loadings and the moments that it was fitted to.

    Returns
    -------
    DataFrame with one row per variable, index levels ``view`` and ``feature``
        Columns in two levels (quantity, component): ``weight``; ``loading``, the correlation
        with the variate of the same view; ``cross_loading``, that with the variate of the other
        view; and, cumulative over components, ``communality`` and ``r2``, the squared multiple
        correlations of the variable with the variates of the same and of the other view.

    Raises
    ------
    TypeError
        If the model has no loadings, or was not fitted to the moments of two views.
    sklearn.exceptions.NotFittedError
        If the model was not fitted.

    Notes
    -----
    Under shrinkage the variates of a view correlate in the sample. The squared multiple
    correlations then come from a sequential regression: each variate counts by its residual
    after regression on the earlier ones.

    References
    ----------
    Thompson, B. (1984). Canonical correlation analysis: uses and interpretation. Sage.

    Examples
    --------
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.inference import loadings_table
    >>> table = loadings_table(CCA().fit(*load_linnerud(return_X_y=True)))
    >>> table["loading"].loc["y", 1].round(4).tolist()
    [-0.6206, -0.9254, 0.3328]

    Two tables with their rows in different orders, missing values and a confound:

    >>> import tempfile, numpy as np, pandas as pd
    >>> folder, rng = tempfile.mkdtemp(), np.random.default_rng(0)
    >>> ids, age, g = pd.Index(range(300), name="id"), rng.normal(size=300), rng.normal(size=300)
    >>> brain = pd.DataFrame({"volume": g + age, "thickness": g - age}, ids)
    >>> tests = pd.DataFrame({"memory": g + age, "speed": g - 2 * age}, ids)
    >>> brain, tests = (a + rng.normal(size=(300, 2)) for a in (brain, tests))
    >>> brain.mask(rng.random(brain.shape) < 0.1).to_csv(f"{folder}/brain.csv")
    >>> tests.assign(age=age).sample(frac=1, random_state=0).to_csv(f"{folder}/tests.csv")

    and the way from these files to a table for a paper:

    >>> from cmstats import CCA, Moments, canonical_correlation_test, loadings_table
    >>> brain = pd.read_csv(f"{folder}/brain.csv", index_col="id")
    >>> tests = pd.read_csv(f"{folder}/tests.csv", index_col="id").loc[brain.index]
    >>> views = {"x": brain, "y": tests.drop(columns="age"), "age": tests["age"]}
    >>> m = Moments.from_data(missing="em", **views).partial_out("age")
    >>> cca = CCA().fit_moments(m)
    >>> canonical_correlation_test(cca)["wilks_p"].round(3).tolist()
    [0.0, 0.817]
    >>> print(loadings_table(cca)["loading"].round(2))
    component          1     2
    view feature
    x    volume     0.87  0.50
         thickness  0.88 -0.48
    y    memory     0.86  0.52
         speed      0.84 -0.55
    """
    model = _with_loadings(cca)
    parts = {}
    for view, other in (("x", "y"), ("y", "x")):
        own, cross = _explained(model, view, view), _explained(model, view, other)
        values = {
            "weight": to_numpy(getattr(model, f"{view}_weights_")),
            "loading": to_numpy(getattr(model, f"{view}_loadings_")),
            "cross_loading": to_numpy(getattr(model, f"{view}_cross_loadings_")),
            "communality": np.cumsum(own, axis=1),
            "r2": np.cumsum(cross, axis=1),
        }
        index = pd.Index(feature_names(model, view), name="feature")
        components = component_index(own.shape[1])
        parts[view] = pd.concat(
            {name: pd.DataFrame(a, index=index, columns=components) for name, a in values.items()},
            axis=1,
        )
    return as_table(pd.concat(parts, names=["view", "feature"]))


def redundancy(cca: Any) -> pd.DataFrame:
    r"""The share of each view's variance that the variates of either view explain.

    The redundancy index of Stewart and Love (1968), for component k of p standardised variables
    with loadings :math:`l_{jk}`:

    .. math:: \text{adequacy}_k = \frac1p \sum_j l_{jk}^2, \quad
        \text{redundancy}_k = r_k^2 \, \text{adequacy}_k

    Parameters
    ----------
    cca : fitted CCA, or a search or pipeline around one
        As in `loadings_table`.

    Returns
    -------
    DataFrame of one row per component
        ``r2``, the squared canonical correlation, and for each view (``x_``, ``y_``)
        ``adequacy`` (variance extracted), ``redundancy`` (the share explained by the other
        view's variate) and both cumulatively (``_total``). With all components the last
        ``redundancy_total`` is the mean R2 of the variables given the other view.

    Raises
    ------
    TypeError
        If the model has no loadings, or was not fitted to the moments of two views.
    sklearn.exceptions.NotFittedError
        If the model was not fitted.

    Notes
    -----
    Redundancy is the mean of the squared cross-loadings, which without shrinkage equals the
    product above; for shrunken models see `loadings_table`.

    References
    ----------
    Stewart, D. and Love, W. (1968). A general canonical correlation index. Psychological
    Bulletin 70.

    Examples
    --------
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.inference import redundancy
    >>> table = redundancy(CCA().fit(*load_linnerud(return_X_y=True)))
    >>> table["y_redundancy"].round(4).tolist()
    [0.2854, 0.0099, 0.0016]
    """
    model = _with_loadings(cca)
    r = to_numpy(model.correlations_)
    table = pd.DataFrame({"r2": r**2}, index=component_index(len(r)))
    for view, other in (("x", "y"), ("y", "x")):
        for name, source in (("adequacy", view), ("redundancy", other)):
            share = _explained(model, view, source).mean(axis=0)
            table[f"{view}_{name}"] = share
            table[f"{view}_{name}_total"] = np.cumsum(share)
    return as_table(table)


def _with_loadings(cca: Any) -> Any:
    model = inner_model(cca)
    if not hasattr(model, "x_cross_loadings_"):
        raise TypeError(f"{type(model).__name__} has no loadings: pass a fitted CCA")
    return model


def _explained(model: Any, variables: str, variates: str) -> Any:
    """The share of each variable's variance that each variate explains beyond earlier ones.

    Shape (p, k). The squared loadings where variates are uncorrelated; else the squared
    correlations with the variates after sequential (Gram-Schmidt) regression on the earlier.
    """
    own = "" if variables == variates else "cross_"
    loadings = to_numpy(getattr(model, f"{variables}_{own}loadings_"))
    weights = getattr(model, f"{variates}_weights_")
    m = total_moments(model)
    cov = to_numpy(m.projected_scatter(variates, variates, weights)) / m.freedom()
    correlations = to_numpy(weights).T @ cov
    # The triangular factor R of the variates' covariance R'R holds the sequential regressions.
    upper = np.linalg.qr(_root(correlations))[1]
    diagonal = np.abs(np.diag(upper))
    if (diagonal <= 1e-10 * max(diagonal.max(), 1e-300)).any():  # a constant variate
        return loadings**2
    return np.linalg.solve(upper.T, loadings.T).T ** 2


def _root(S: Any) -> Any:
    """R with R'R = S, for a positive semi-definite S."""
    values, vectors = np.linalg.eigh((S + S.T) / 2)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
