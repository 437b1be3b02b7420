"""Permutation test of canonical correlations, valid past the first component."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.utils import check_random_state

from cmstats.arrays import Array, device_of, is_numpy, namespace, to_numpy
from cmstats.inference.exchangeable import Rows, reflect, residual_rows
from cmstats.inference.fitted import check_count, component_index
from cmstats.inference.steps import STATISTICS, with_rows_spent
from cmstats.kernels import whitening
from cmstats.kernels.linalg import svd
from cmstats.kernels.threads import blas_for, cores, share
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import shrinkage_numbers, shrinkage_tuple

__all__ = ["permutation_test"]

HOST_BYTES, DEVICE_BYTES = 32 << 20, 512 << 20
"""How many bytes of permuted rows one matrix product takes."""


def permutation_test(
    X: Any,
    y: Any,
    *,
    Z: Any = None,
    n_permutations: int = 999,
    statistic: Literal["wilks", "pillai", "roy", "all"] = "wilks",
    n_components: int | None = None,
    shrinkage: Any = 0.0,
    blocks: Any = None,
    random_state: Any = None,
    return_null: bool = False,
    verbose: bool = False,
) -> Any:
    r"""Test each canonical correlation and all later ones by permuting rows, step by step.

    The variables are turned once into orthonormal bases U, V of canonical variates, the wider
    view completed by what is left of it. Under a permutation P of the rows

    .. math:: K = U' P V

    and the statistic of step k is that of the block ``K[k:, k:]``: the earlier variates are
    taken out of both views, so that a strong first correlation neither hides nor feigns the
    next (Winkler et al. 2020). Without this the test is valid for the first component only.

    Parameters
    ----------
    X, y : array-like or sparse matrix of shapes (n, p), (n, q)
        The two views, of any array library; permutations run where `X` is, with products in
        its precision.
    Z : array-like of shape (n, r), optional
        Nuisance variables, taken out of both views. Residuals are not exchangeable; they are
        turned into the n - 1 - r that are (Huh and Jhun 2001), each near one row (Theil 1965).
    n_permutations : int, default=999
    statistic : {"wilks", "pillai", "roy", "all"}, default="wilks"
        "wilks" by one Cholesky factor a permutation for all steps; "pillai" by sums of
        squares, the cheapest, weaker against a single correlation; "roy", the largest
        correlation left, by an eigenvalue problem a step: set `n_components` for hundreds of
        features.
    n_components : int, optional
        The number of steps; by default all, min(p, q).
    shrinkage : float in [0, 1), "auto" or an (x, y) pair of these, default=0.0
        For the singular values of shrunken CCA, where features are many. Not "cv": a choice
        that saw the pairing would have to be made anew in every permutation.
    blocks : array-like of shape (n,), optional
        Rows are only exchanged within blocks of equal labels (sites, subjects). Differences
        between block means are for `Z`.
    random_state : int, RandomState or None
        The permutations do not depend on batches, threads or the device.
    return_null : bool, default=False
        Also return the statistics under permutation.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    DataFrame of one row per component
        ``correlation`` (``singular_value`` under shrinkage), the statistic by its name,
        ``p_step`` = (1 + #{permuted >= observed}) / (1 + n_permutations), and ``p_value``, the
        cumulative maximum of ``p_step``, which bounds the family-wise error. For "all" there
        is an outer index level ``statistic``.
    null : array of shape (n_permutations, steps), or a dict of these for "all"
        Only if `return_null`. On the scale of the column: Wilks' lambda is small where
        correlations are large.

    Raises
    ------
    ValueError
        If p + q (by rank) exceeds n - 1 - rank Z without shrinkage, where some correlations
        are 1 in every permutation; if a view does not vary; or a parameter is out of range.

    Notes
    -----
    Exact for the first component where rows are exchangeable; with `Z` for normal rows, and
    asymptotically. The variates that step k + 1 leaves out were found in these data, so the
    observed block lies in fewer dimensions than a permuted one and is a little larger: by
    Lawley (1959) as if k rows were missing, where the earlier correlations are high, and by
    less where they are not. Permuted statistics are enlarged to the same: Pillai's by
    N / (N - k), -log Lambda (and -log(1 - r^2) for "roy") by Bartlett's factors,
    1 + k / (N - (p + q + 1) / 2), with N = n - 1 - rank Z. Rejections at .05 of component 2
    after a true first of .9 (100 rows, 20 and 15 features, 1000 sets): .046, .047, .057 for
    Wilks, Pillai and Roy, where they are .062, .064, .065 without. Under shrinkage variates
    of different components correlate on the data, and later steps are approximate.

    References
    ----------
    Lawley, D. N. (1959). Tests of significance in canonical analysis. Biometrika 46.
    Winkler, A. M., Renaud, O., Smith, S. M. and Nichols, T. E. (2020). Permutation inference for
    canonical correlation analysis. NeuroImage 220.
    Huh, M.-H. and Jhun, M. (2001). Random permutation testing in multiple linear regression.
    Communications in Statistics 30.
    Theil, H. (1965). The analysis of disturbances in regression analysis. JASA 60.

    Examples
    --------
    >>> from cmstats import load_linnerud
    >>> from cmstats.inference import permutation_test
    >>> X, Y = load_linnerud(return_X_y=True)
    >>> test = permutation_test(X, Y, statistic="pillai", random_state=0)
    >>> test["pillai"].round(6).tolist()
    [0.678482, 0.045489, 0.005266]
    >>> bool((test["p_value"] > 0.05).all())
    True
    """
    names = _checked_names(statistic, n_permutations)
    rows = residual_rows(X, y, Z, blocks)
    U, r, V, shrunken = _canonical_bases(rows, shrinkage)
    m = int(r.shape[0])
    steps = m if n_components is None else check_count("n_components", n_components, 1, m, "steps")
    U, V = (U, V) if U.shape[1] >= V.shape[1] else (V, U)  # fewer columns are moved about
    widths = (int(U.shape[1]), int(V.shape[1]))
    xp = namespace(U)
    observed_block = (U.mT @ V)[None, :, :]
    null = {name: np.empty((n_permutations, steps)) for name in names}
    U, V = xp.astype(U, rows.dtype), xp.astype(V, rows.dtype)
    _run(U, V, rows.codes, null, random_state, verbose)
    single = rows.dtype != xp.float64
    tables = {}
    for name in names:
        null[name] = with_rows_spent(name, null[name], rows.freedom, widths, shrunken)
        found = to_numpy(STATISTICS[name](observed_block, steps, single))[0]
        # Permutations that only relabel equal rows give the observed value up to rounding.
        bound = found - (1e-5 if single else 1e-9) * np.maximum(np.abs(found), 1e-6)
        p = (1 + (null[name] >= bound).sum(axis=0)) / (1 + n_permutations)
        tables[name] = _table(to_numpy(r)[:steps], name, found, p, shrunken)
        null[name] = _reported(name, null[name])
    if statistic == "all":
        for name, one in tables.items():
            one.columns = pd.Index([c if c != name else "value" for c in one.columns])
        table = pd.concat(tables, names=["statistic"])
    else:
        table = tables[statistic]
    return (table, null if statistic == "all" else null[names[0]]) if return_null else table


def _table(r: Any, name: str, found: Any, p: Any, shrunken: bool) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "singular_value" if shrunken else "correlation": r,
            name: _reported(name, found),
            "p_step": p,
            "p_value": np.maximum.accumulate(p),
        },
        index=component_index(len(r)),
    )


def _reported(name: str, values: Any) -> Any:
    return np.exp(-values) if name == "wilks" else values


def _checked_names(statistic: str, n_permutations: Any) -> list[str]:
    if statistic not in (*STATISTICS, "all"):
        raise ValueError(f"statistic={statistic!r} is unknown: 'wilks', 'pillai', 'roy' or 'all'")
    whole = isinstance(n_permutations, (int, np.integer)) and not isinstance(n_permutations, bool)
    if not whole or n_permutations < 1:
        raise ValueError(f"n_permutations={n_permutations!r} must be a whole number, 1 or more")
    return list(STATISTICS) if statistic == "all" else [statistic]


# -------------------------------------------------------------------- canonical bases
def _canonical_bases(rows: Rows, shrinkage: Any) -> tuple[Array, Array, Array, bool]:
    """U, r, V with ``U'V = [diag(r), 0]``: canonical variates and, in the wider view, the rest.

    Orthonormal without shrinkage.
    """
    sx, sy = _shrinkage_pair(rows.x, rows.y, shrinkage)
    xp = namespace(rows.x, rows.y)
    bases = []
    for a, s, name in ((rows.x, sx, "X"), (rows.y, sy, "y")):
        if not bool(xp.any(a != 0)):
            raise ValueError(f"no column of {name} varies (beyond Z): there is nothing to test")
        bases.append((1 - s) ** 0.5 * _whitened(a, s))
    U, V = bases
    p, q = int(U.shape[1]), int(V.shape[1])
    if p + q > rows.freedom and not (sx and sy):
        raise ValueError(
            f"{p} + {q} linearly independent features in the {rows.freedom} dimensions that the "
            "rows have beyond means and nuisance make some correlations 1 in every permutation: "
            "set shrinkage for both views, or take fewer features"
        )
    with blas_for(p + q):
        u, r, vt = svd(U.mT @ V)
    U = U @ _completed(u)
    V = V @ _completed(vt.mT)
    return U, r, V, bool(sx or sy)


def _whitened(a: Array, s: float) -> Array:
    """``a W`` with ``W' ((1 - s) a'a + s tr(a'a) / d I) W = I``; orthonormal columns at s = 0."""
    xp = namespace(a)
    n, d = a.shape
    ridge = s * float(xp.sum(a * a)) / d
    if 2 * d <= n:  # from the products, a fifth of the time, where they resolve the data
        S = (1 - s) * (a.mT @ a)
        S = S + ridge * xp.eye(d, dtype=S.dtype, device=device_of(S)) if s else S
        with blas_for(d):
            factor = whitening.factor(S)
        if factor.condition < 1e3:
            return a @ factor.weights
    return whitening.factor_root(a, keep=1 - s, ridge=ridge).root


def _shrinkage_pair(X: Array, Y: Array, shrinkage: Any) -> tuple[float, float]:
    pair = shrinkage_tuple(shrinkage)
    if any(s == "cv" if isinstance(s, str) else s >= 1 for s in pair):
        raise ValueError(
            f"shrinkage={shrinkage!r}: a permutation test takes a float in [0, 1), 'auto' or an "
            "(x, y) pair of these; a value chosen by cross-validation has seen the pairing"
        )
    if "auto" not in pair:
        return float(pair[0]), float(pair[1])
    form: Any = "root" if X.shape[1] + Y.shape[1] > X.shape[0] else "scatter"
    sx, sy = shrinkage_numbers(Moments.from_data(form=form, x=X, y=Y), ("x", "y"), pair)
    return min(sx, 0.99), min(sy, 0.99)


def _completed(basis: Array) -> Array:
    """Orthonormal columns, with as many more as make the matrix square."""
    xp = namespace(basis)
    d, m = basis.shape
    if d == m:
        return basis
    rest = xp.eye(d, dtype=basis.dtype, device=device_of(basis))[:, m:]
    return xp.concat([basis, reflect(basis, rest)], axis=1)


# ---------------------------------------------------------------------- permutations
def _run(
    U: Array, V: Array, codes: Any, null: dict[str, Any], random_state: Any, verbose: bool
) -> None:
    """Fill the null distributions, a batch of permutations in each matrix product."""
    xp = namespace(U)
    n, q = V.shape
    p = U.shape[1]
    count, steps = next(iter(null.values())).shape
    on_host = is_numpy(xp)
    room = (HOST_BYTES if on_host else DEVICE_BYTES) // (8 * max(n * q, (p + q) ** 2))
    turns = 4 * cores() if on_host else 1
    size = max(1, min(room, math.ceil(count / turns)))
    entropy = check_random_state(random_state).randint(0, 2**32, size=4, dtype=np.uint32)
    bar = _progress(count) if verbose else nullcontext()
    single = U.dtype != xp.float64

    def work(starts: Iterator[int]) -> None:
        for start in starts:
            batch = min(size, count - start)
            K = _cross_products(U, V, _orders(entropy, start, batch, n, codes))
            for name, out in null.items():
                out[start : start + batch] = to_numpy(STATISTICS[name](K, steps, single))
            if verbose:
                bar.update(batch)  # type: ignore[union-attr]

    with bar:
        share(work, list(range(0, count, size)), inline=not on_host)


def _progress(count: int) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=count, desc="permutations")


def _orders(entropy: Any, start: int, batch: int, n: int, codes: Any) -> Any:
    """Sorting keys of permutations number start, start + 1, ..., shape (batch, n).

    One draw a key and the generator moved on by as many: the same keys whatever the batches.
    Keys of a block lie in an interval of its own, so sorting stays inside blocks.
    """
    draws = np.random.PCG64(np.random.SeedSequence(entropy.tolist())).advance(start * n)
    keys = np.random.Generator(draws).random((batch, n))
    return keys if codes is None else keys + codes


def _cross_products(U: Array, V: Array, keys: Any) -> Array:
    """``U' P V`` of every permutation, shape (batch, p, q), by one matrix product."""
    xp = namespace(U)
    batch, n = keys.shape
    orders = xp.argsort(xp.asarray(keys, device=device_of(U)), axis=1)
    flat = xp.reshape(orders.mT, (n * batch,))
    moved = xp.reshape(xp.take(V, flat, axis=0), (n, batch * V.shape[1]))
    K = U.mT @ moved
    return xp.permute_dims(xp.reshape(K, (U.shape[1], batch, V.shape[1])), (1, 0, 2))
