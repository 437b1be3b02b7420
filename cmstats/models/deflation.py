"""Components of two views by deflation of their joint moments, or all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cmstats.arrays import Array, namespace
from cmstats.kernels.linalg import leading_pair, leading_svd, signs
from cmstats.models.ridge import HeldOut, r2
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk

__all__ = ["Deflation", "deflated", "least_squares", "published", "singular_pairs"]


@dataclass(frozen=True)
class Deflation:
    """Components of two views in the order in which they were found, in scaled units.

    Fields that end in an underscore are those of `PLS`; `x_rotations` and `y_rotations` are in
    the data's units.
    """

    x_mean_: Array
    y_mean_: Array
    x_weights_: Array
    y_weights_: Array
    x_loadings_: Array
    y_loadings_: Array
    x_rotations_: Array
    y_rotations_: Array
    coef_: Array
    intercept_: Array
    x_explained_variance_ratio_: Array
    y_explained_variance_ratio_: Array
    n_components_: int
    x_rotations: Array
    y_rotations: Array
    y_slopes: Array
    notes: tuple[str, ...] = ()

    def path_r2(self, moments: Moments) -> Array:
        """R2 of every target with the first 1, 2, ... components on held-out moments, (k, q)."""
        namespace(moments.mean("x"), self.x_mean_)  # of one library, on one device
        held = HeldOut.of(moments, (self.x_mean_, self.y_mean_))
        return r2(held.component_errors(self.x_rotations, self.y_slopes.mT), moments)

    def correlations_on(self, moments: Moments) -> Array:
        """The correlations of the paired scores on held-out moments, (k,)."""
        return moments.paired_correlations("x", "y", self.x_rotations, self.y_rotations)


def deflated(m: Shrunk, most: int, mode: str) -> tuple[list[Array], ...]:
    """Weights w, c, rotations r, s, loadings p, q and variances of the scores, by component.

    A component has the leading singular vectors w, c of the cross-covariance that is left. With
    scores t = X r of the deflated view, X is deflated by t p' and the cross-covariance alone
    changes (Dayal and MacGregor 1997): X'X is only ever multiplied by one vector.
    """
    S = m.cov("x", "y")
    xp = namespace(S)
    found: tuple[list[Array], ...] = tuple([] for _ in range(8))
    _, _, R, T, P, Q, *_ = found
    least = None
    for _ in range(most):
        w, d, c = leading_pair(S)
        least = float(d) * 1e-10 if least is None else least
        if not float(d) > least:  # nothing is left that varies together
            break
        sign = signs(w[:, None])[0]
        w, c = sign * w, sign * c
        r = w - sum(((w @ p) * r for p, r in zip(P, R, strict=True)), 0 * w)
        covariance = m.project_sample("x", "x", r[:, None])[:, 0]
        variance = xp.sum(r * covariance)
        p = covariance / variance
        if mode == "regression":
            q = c = s = S.mT @ r / variance
            y_variance = variance
            S = S - variance * p[:, None] * q[None, :]
        else:
            s = c - sum(((c @ q) * s for q, s in zip(Q, T, strict=True)), 0 * c)
            covariance = m.project_sample("y", "y", s[:, None])[:, 0]
            y_variance = xp.sum(s * covariance)
            q = covariance / y_variance
            S = S - p[:, None] * (w @ S)[None, :] - (S @ c)[:, None] * q[None, :]
            S = S + d * p[:, None] * q[None, :]
        for kept, value in zip(found, (w, c, r, s, p, q, variance, y_variance), strict=True):
            kept.append(value)
    return found


def singular_pairs(m: Shrunk, most: int) -> tuple[list[Array], ...]:
    """The same of all singular vectors at once, without deflation."""
    U, d, Vt = leading_svd(m.cov("x", "y"), most)
    xp = namespace(U)
    kept = [i for i in range(int(d.shape[0])) if float(d[i]) > 1e-10 * float(d[0])]
    sign = signs(U)
    W, C = (sign * U)[:, : len(kept)], (sign * Vt.mT)[:, : len(kept)]
    xW, yC = m.project_sample("x", "x", W), m.project_sample("y", "y", C)
    X_var, Y_var = xp.sum(W * xW, axis=0), xp.sum(C * yC, axis=0)
    columns = [[a[:, i] for i in kept] for a in (W, C, W, C, xW / X_var, yC / Y_var)]
    return (*columns, [X_var[i] for i in kept], [Y_var[i] for i in kept])


def least_squares(m: Shrunk, R: Array) -> Array:
    """Coefficients of y, in scaled units, on scores of x that need not be orthogonal."""
    xp = namespace(R)
    G = R.mT @ m.project_sample("x", "x", R)
    return m.project_sample("y", "x", R) @ xp.linalg.pinv(G)


def published(
    m: Shrunk, parts: Sequence[Array], slopes: Array, variances: Any, notes: Sequence[str],
    mode: str,
) -> Deflation:  # fmt: skip
    """What the components are in the data's units, and how much they explain.

    Where all columns of a view have one unit, scores have it too: loadings do not change with it,
    but coefficients of y on scores of x do.
    """
    W, C, R, S, P, Q = parts
    xp, ux, uy = namespace(W), m.units("x"), m.units("y")
    a, b = m.unit("x"), m.unit("y")
    on_x = b / a if mode == "regression" else 1.0
    of_score = 1.0 if mode == "canonical" else b / a
    x_rotations, y_slopes = R / (ux / a)[:, None], slopes * (uy / b * of_score)[:, None]
    coef = y_slopes @ x_rotations.mT
    shares: list[Array] = []
    for name, A, variance in zip("xy", (P, Q), variances, strict=True):
        total = xp.sum(m.sample.variance(name))
        of_scores = xp.stack(variance) if variance else 0 * A[0, :]
        shares.append(of_scores * xp.sum(A * A, axis=0) / xp.where(total > 0, total, 1.0))
    found = Deflation(
        m.mean("x"), m.mean("y"), W, C * on_x, P, Q * on_x, R, S / on_x, coef,
        m.mean("y") - coef @ m.mean("x"), shares[0], shares[1], int(W.shape[1]),
        x_rotations, S / on_x / (uy / b)[:, None], y_slopes,
    )  # fmt: skip
    return replace(found, notes=tuple(notes))
