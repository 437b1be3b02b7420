"""Tests of canonical correlations by the reference distributions for normal data."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from cmstats.arrays import check_count, observations, to_numpy
from cmstats.inference.fitted import component_index, inner_model, total_moments
from cmstats.kernels.linalg import svd
from cmstats.metrics.tables import as_table

__all__ = ["canonical_correlation_test"]


def canonical_correlation_test(
    cca: Any = None,
    *,
    correlations: Any = None,
    n: float | None = None,
    p: int | None = None,
    q: int | None = None,
    n_nuisance: int | None = None,
) -> pd.DataFrame:
    r"""Test, for each component, that its correlation and all later ones are zero.

    With :math:`r_1 \ge \dots \ge r_m`, of which the first :math:`k` are taken as nonzero, the
    four statistics of step k + 1 are

    .. math:: \Lambda = \prod_{i>k} (1 - r_i^2), \quad V = \sum_{i>k} r_i^2, \quad
        U = \sum_{i>k} \frac{r_i^2}{1 - r_i^2}, \quad \theta = \frac{r_{k+1}^2}{1 - r_{k+1}^2}

    (Wilks, Pillai, Hotelling-Lawley, Roy). Each later step is the same test on p - k and q - k
    variables and n - k rows.

    Parameters
    ----------
    cca : fitted CCA, or a search or pipeline around one, optional
        All its correlations are tested, whatever its `n_components`: they follow from its
        moments. Linearly dependent columns count by their rank.
    correlations : array-like of shape (min(p, q),), optional
        All sample canonical correlations, instead of `cca`, with `n`, `p` and `q`.
    n : float
        The number of rows (the sum of frequency weights).
    p, q : int
        The numbers of variables of the two views.
    n_nuisance : int, optional
        The number of variables that were partialled out before; each costs a degree of freedom.
        By default that of the moments a model was fitted to (`Moments.partial_out`), or none.

    Returns
    -------
    DataFrame of one row per component
        ``correlation``; ``wilks`` with Rao's F (``wilks_F``, ``wilks_df1``, ``wilks_df2``,
        ``wilks_p``) and the chi-square of Bartlett (1938) with the factor of Lawley (1959)
        (``chi2``, ``chi2_df``, ``chi2_p``); ``pillai``, ``hotelling_lawley`` and ``roy``, each
        with ``_F``, ``_df1``, ``_df2``, ``_p``.

    Raises
    ------
    ValueError
        If correlations do not lie in [0, 1], there are not min(p, q) of them, rows are fewer
        than p + q + 1, the model was shrunken, or no column of a view varies.
    TypeError
        If the model was not fitted to the moments of two views.

    Notes
    -----
    Rao's F (1951) is exact where min(p, q) - k is 1 or 2. The F of the Hotelling-Lawley trace
    is McKeon's (1974), NaN where n is at most p + q + 2 and the trace has no mean. Roy's F is an
    upper bound, its p a lower bound. All assume normal rows and nonzero earlier correlations:
    read the table from the top and stop at the first row that is not significant.

    Where rows have heavy tails the tests reject too often. Of independent views Wilks' test at
    .05 rejected .03 to .05 on normal rows, .06 to .08 on t rows with 3 degrees of freedom, and
    .10 to .33 on Cauchy rows; Roy's far more, .14 (3 and 2 variables) to .70 (5 and 5) on normal
    rows already. `permutation_test` needs neither normality nor many rows: .05 on Cauchy rows.

    References
    ----------
    Bartlett, M. S. (1938). Further aspects of the theory of multiple regression. Proc. Cambridge
    Philos. Soc. 34.
    Rao, C. R. (1951). An asymptotic expansion of the distribution of Wilks' criterion. Bull.
    Inst. Internat. Statist. 33.
    Lawley, D. N. (1959). Tests of significance in canonical analysis. Biometrika 46.
    McKeon, J. J. (1974). F approximations to the distribution of Hotelling's T0^2. Biometrika 61.

    Examples
    --------
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.inference import canonical_correlation_test
    >>> test = canonical_correlation_test(CCA().fit(*load_linnerud(return_X_y=True)))
    >>> test[["wilks", "wilks_F", "wilks_df2", "wilks_p"]].round(4).values.tolist()
    [[0.3504, 2.0482, 34.2229, 0.0635],
     [0.9547, 0.1758, 30.0, 0.9491],
     [0.9947, 0.0847, 16.0, 0.7748]]
    """
    if (cca is None) == (correlations is None):
        raise ValueError("pass either a fitted CCA or correlations with n, p and q")
    if cca is not None:
        if any(given is not None for given in (n, p, q)):
            raise ValueError("a fitted CCA brings its own n, p and q: leave them out")
        r, n, p, q, known = _of_model(cca)
    else:
        (r, n, p, q), known = _checked(correlations, n, p, q), 0
    n = n - check_count("n_nuisance", known if n_nuisance is None else n_nuisance)
    if n - 1 < p + q:
        raise ValueError(
            f"n={n:g} rows and p + q = {p + q} variables: the reference distributions need at "
            f"least {p + q + 1} rows; use permutation_test with shrinkage, or fewer variables"
        )
    # The k earlier correlations are taken as nonzero: they cost k variables and k rows.
    rows = [_statistics(r, k, n, p, q) for k in range(len(r))]
    table = as_table(pd.DataFrame(rows, index=component_index(len(r))))
    table.attrs["note"] = "For normal rows; permutation_test is for others. roy_p is a lower bound."
    return table


def _of_model(cca: Any) -> tuple[Any, float, int, int, int]:
    """All correlations of a fitted model, its rows, and the ranks of both views and a nuisance."""
    model = inner_model(cca)
    shrinkage = getattr(model, "shrinkage_", None)
    if shrinkage is None or any(s > 0 for s in shrinkage):
        raise ValueError(
            f"the reference distributions hold for CCA without shrinkage, not for "
            f"{type(model).__name__} with shrinkage {shrinkage}: use permutation_test"
        )
    m = total_moments(model)
    if getattr(model, "scale", False):
        m = m.standardized()
    x, y = m.whiten("x"), m.whiten("y")
    r = to_numpy(svd(x.cross(y))[1]) if x.rank and y.rank else np.zeros(0)
    if not len(r):
        raise ValueError("every column of x or of y is constant: there is nothing to test")
    return np.clip(r, 0.0, 1.0), observations(m.n, m.rows), x.rank, y.rank, m.nuisance_rank


def _checked(correlations: Any, n: Any, p: Any, q: Any) -> tuple[Any, float, int, int]:
    """Validated correlations in descending order, with n, p and q."""
    if n is None or p is None or q is None:
        raise ValueError("correlations need n, p and q: the rows and the variables of both views")
    r = np.atleast_1d(to_numpy(correlations))
    if r.dtype.kind not in "biuf":
        raise ValueError(f"correlations must be numbers, got {correlations!r}")
    r = r.astype(np.float64)
    p, q = check_count("p", p, 1), check_count("q", q, 1)
    if isinstance(n, bool) or not isinstance(n, numbers.Real) or not np.isfinite(float(n)):
        raise ValueError(f"n={n!r} must be the number of rows (the sum of frequency weights)")
    if r.ndim != 1 or len(r) != min(p, q):
        raise ValueError(
            f"correlations have shape {r.shape}, but with p={p} and q={q} variables there are "
            f"{min(p, q)}: the tests need all of them"
        )
    if not bool(np.all((r >= 0) & (r <= 1))):
        raise ValueError("correlations must lie in [0, 1]: canonical correlations have no sign")
    return np.sort(r)[::-1], float(n), int(p), int(q)


def _statistics(r: Any, k: int, n: float, p: int, q: int) -> dict[str, float]:
    """The row of the table for "correlation k + 1 and all later are zero"."""
    square, left = r[k:] ** 2, (p - k, q - k)
    with np.errstate(divide="ignore"):  # a correlation of 1: infinite statistics, p = 0
        log_wilks = float(np.sum(np.log1p(-square)))
        odds = np.where(square < 1, square / (1 - np.minimum(square, 1)), np.inf)
    row = {"correlation": float(r[k]), "wilks": float(np.exp(log_wilks))}
    row |= _named("wilks", _rao(log_wilks, n - 1 - (p + q + 1) / 2, *left))
    row |= _bartlett_lawley(log_wilks, r[:k] ** 2, n - 1 - k - (p + q + 1) / 2, *left)
    pillai, trace, root = float(np.sum(square)), float(np.sum(odds)), float(odds[0])
    row |= {"pillai": pillai} | _named("pillai", _pillai(pillai, n - k, *left))
    row |= {"hotelling_lawley": trace}
    row |= _named("hotelling_lawley", _hotelling_lawley(trace, n - k, *left))
    row |= {"roy": root} | _named("roy", _roy(root, n - k, *left))
    return row


def _named(name: str, F: tuple[float, float, float]) -> dict[str, float]:
    """The cells of an F statistic and its degrees of freedom, with the upper tail p."""
    value, df1, df2 = F
    return {
        f"{name}_F": value,
        f"{name}_df1": df1,
        f"{name}_df2": df2,
        f"{name}_p": float(stats.f.sf(value, df1, df2)),
    }


def _bartlett_lawley(
    log_wilks: float, earlier: Any, multiplier: float, p: int, q: int
) -> dict[str, float]:
    """The chi-square of -log Lambda with Lawley's factor, which adds sum_{i<=k} 1 / r_i^2."""
    # An earlier correlation of 0 would divide by zero; all later ones, and log Lambda, are 0 too.
    chi2 = -log_wilks * (multiplier + float(np.sum(1 / earlier[earlier > 0])))
    return {"chi2": chi2, "chi2_df": float(p * q), "chi2_p": float(stats.chi2.sf(chi2, p * q))}


def _rao(log_wilks: float, multiplier: float, p: int, q: int) -> tuple[float, float, float]:
    """Rao's F = (1 - L) / L * df2 / df1 with L = Lambda**(1 / t)."""
    t = ((p * p * q * q - 4) / (p * p + q * q - 5)) ** 0.5 if min(p, q) > 1 else 1.0
    df1, df2 = float(p * q), multiplier * t - p * q / 2 + 1
    with np.errstate(over="ignore"):
        return float(np.expm1(-log_wilks / t)) * df2 / df1, df1, df2


def _pillai(V: float, n: float, p: int, q: int) -> tuple[float, float, float]:
    """Pillai's F = (V / df1) / ((s - V) / df2) with s = min(p, q)."""
    s, error = min(p, q), n - 1 - p - q
    df1, df2 = float(p * q), s * (error + s)
    return (V / df1 / ((s - V) / df2) if s > V else np.inf), df1, df2


def _hotelling_lawley(U: float, n: float, p: int, q: int) -> tuple[float, float, float]:
    """McKeon's F, which matches the first two moments of the trace; ``a`` is 2 N there."""
    a = n - 2 - p - q
    if a <= 0:
        return np.nan, float(p * q), np.nan
    spread = (a + 1) * (a - 2)  # 0 at a = 2, where b is infinite: form 1 / (b - 1)
    df2 = 4 + (p * q + 2) * spread / ((p + a) * (q + a) - spread)
    return U / (p * q) * df2 / ((df2 - 2) / a), float(p * q), df2


def _roy(theta: float, n: float, p: int, q: int) -> tuple[float, float, float]:
    """The F that bounds Roy's largest root from above."""
    df1 = max(p, q)
    df2 = n - 1 - df1
    return theta * df2 / df1, float(df1), df2
