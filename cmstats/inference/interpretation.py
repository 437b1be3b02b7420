"""Reading a canonical correlation analysis: loadings, communality, redundancy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cmstats.arrays import to_numpy
from cmstats.inference.fitted import component_index, feature_names, inner_model, total_moments

__all__ = ["loadings_table", "redundancy"]


def loadings_table(cca: Any) -> pd.DataFrame:
    """Weights, loadings and cross-loadings of every variable, and what is explained of it.

    Parameters
    ----------
    cca : fitted CCA, or a search or pipeline around one

    Returns
    -------
    DataFrame with one row per variable, index levels ``view`` and ``feature``
        Columns, in two levels (what, component): ``weight``; ``loading``, the correlation with
        the own view's variate; ``cross_loading``, that with the other view's; and, cumulative
        over components, ``communality`` and ``r2``, the squared multiple correlations of the
        variable with the own and with the other view's variates.

    Notes
    -----
    Without shrinkage the variates of a view do not correlate, and the squared multiple
    correlations are sums of squared (cross-)loadings. Under shrinkage variates are taken one
    after the other, each less its regression on those before.

    Examples
    --------
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.inference import loadings_table
    >>> table = loadings_table(CCA().fit(*load_linnerud(return_X_y=True)))
    >>> table["loading"].loc["y", 1].round(4).tolist()
    [-0.6206, -0.9254, 0.3328]
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
    return pd.concat(parts, names=["view", "feature"])


def redundancy(cca: Any) -> pd.DataFrame:
    r"""How much of each view's variance its own and the other view's variates explain.

    The redundancy index of Stewart and Love (1968), for component k of p standardised variables
    with loadings :math:`l_{jk}`:

    .. math:: \text{adequacy}_k = \frac1p \sum_j l_{jk}^2, \quad
        \text{redundancy}_k = r_k^2 \, \text{adequacy}_k

    Parameters
    ----------
    cca : fitted CCA, or a search or pipeline around one

    Returns
    -------
    DataFrame of one row per component
        ``r2``, the squared canonical correlation, and for each view (``x_``, ``y_``)
        ``adequacy`` (variance extracted), ``redundancy`` (the share explained by the other
        view's variate) and both cumulatively (``_total``). The last ``redundancy_total`` is
        the mean of the variables' R2 given the other view, where all components are taken.

    Notes
    -----
    Redundancy is computed from the cross-loadings, which gives the product above without
    shrinkage; for shrunken models see `loadings_table`.

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
    return table


def _with_loadings(cca: Any) -> Any:
    model = inner_model(cca)
    if not hasattr(model, "x_cross_loadings_"):
        raise TypeError(f"{type(model).__name__} has no loadings: pass a fitted CCA")
    return model


def _explained(model: Any, variables: str, variates: str) -> Any:
    """The share of each variable's variance that each variate adds, shape (p, k)."""
    own = "" if variables == variates else "cross_"
    loadings = to_numpy(getattr(model, f"{variables}_{own}loadings_"))
    weights = getattr(model, f"{variates}_weights_")
    m = total_moments(model)
    cov = to_numpy(m.projected_scatter(variates, variates, weights)) / (m.n - 1)
    correlations = to_numpy(weights).T @ cov
    # Sequential regression on unit variates: the triangular factor of their correlations.
    upper = np.linalg.qr(_root(correlations))[1]
    diagonal = np.abs(np.diag(upper))
    if (diagonal <= 1e-10 * max(diagonal.max(), 1e-300)).any():  # variates that do not vary
        return loadings**2
    return np.linalg.solve(upper.T, loadings.T).T ** 2


def _root(S: Any) -> Any:
    """R with R'R = S, for a positive semi-definite S."""
    values, vectors = np.linalg.eigh((S + S.T) / 2)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T
