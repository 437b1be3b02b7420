r"""The likelihood ratio of all pairs of rows at every shrinkage, from one eigendecomposition.

In units in which both views have trace / columns = 1, the joint covariance J shrunk by the same s
in both views is :math:`C_s = (1 - s) J + s T`, with the target T = I, or

.. math:: T = \begin{pmatrix} I & c I \\ c I & I \end{pmatrix}, \qquad
    c = \operatorname{tr}(J_{xy}) / p

for aligned views. With :math:`J v = \lambda T v` and V'TV = I, and the eigenvectors of each view's
own covariance, the precision matrices of the pair, of x and of y are diagonal at once for every
s: with :math:`w = 1 / ((1 - s) \lambda + s)`, and :math:`w_a, w_b` of the views' own eigenvalues,

.. math:: \log \frac{p(x, y)}{p(x) p(y)} = -(x V_x) w (y V_y)'
    - \tfrac12 [(x V_x)^2 w - (x U_x)^2 w_a] - \tfrac12 [(y V_y)^2 w - (y U_y)^2 w_b] + k(s).

Three decompositions serve a whole path of s; each s then costs one product. Where there are more
columns than rows, the directions in which the data vary suffice: outside of them every precision
is 1 / s, which is subtracted from all. Scores that are only compared need no eigenvectors: with
tridiagonal matrices in place of the diagonal ones V costs a third, and w becomes a tridiagonal
system (`Tridiagonal`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cmstats.arrays import Array, float64, namespace, result_dtype
from cmstats.kernels.threads import thread_map
from cmstats.kernels.tridiagonal import SINGLE_FROM, Pivots, Reduced, Tridiagonal
from cmstats.moments.folds import is_inline
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Target, aligned_constant, standard_deviations
from cmstats.rows.chunks import project

__all__ = ["LikelihoodPath", "PathScores", "PathSide"]


@dataclass(frozen=True)
class _Part:
    """A covariance in the units of the shrinkage (`Reduced`), V by block in those of the data.

    `rest` of its eigenvalues are 0 and left out.
    """

    T: Tridiagonal
    vectors: tuple[Array, ...]
    inner: bool
    rest: int

    def gain(self, s: float) -> float:
        """The weight of V ((1 - s) T + s)^-1 V' in the precision matrix."""
        return -(1 - s) / s if self.inner else 1.0


@dataclass(frozen=True)
class LikelihoodPath:
    """log p(x, y) - log p(x) - log p(y) as a function of the shrinkage, the same of both views.

    `on` gives the scores of all pairs of some rows at every s, `expected_ratio` their mean over
    the pairs behind some moments. Both are for choosing s (and the target): one path for each
    fold and target, then all s.

    Attributes
    ----------
    names : tuple of two str
        The blocks.
    means, units : pairs of arrays of shape (p,), (q,)
        Rows are centred by the means and multiplied by the units.
    constant : float
        c of the aligned target; 0 for the independent one.
    joint, own : _Part, and a pair of these
    single : bool
        Whether scores are computed in single precision, whatever that of the rows is.
    """

    names: tuple[str, str]
    means: tuple[Array, Array]
    units: tuple[Array, Array]
    constant: float
    joint: _Part
    own: tuple[_Part, _Part]
    single: bool = False

    @classmethod
    def of(
        cls,
        moments: Moments,
        *,
        target: Target = "independent",
        scale: bool = False,
        names: tuple[str, str] = ("x", "y"),
        to_rank: bool = False,
    ) -> LikelihoodPath:
        """The path of some training moments.

        Parameters
        ----------
        moments : Moments
            Of either form; without missing entries, or with their estimate.
        target : {"independent", "aligned"}
        scale : bool
            Whether columns are standardised first.
        names : pair of str
            Two of the blocks.
        to_rank : bool, default=False
            Whether scores are only compared, for which single precision is enough.
        """
        pair = moments if moments.names == names else moments.select(*names)
        xp = namespace(pair.mean(names[0]))
        sample = pair.standardized() if scale else pair
        units, traces = [], []
        for name in names:
            unit = float64(xp.ones_like(pair.mean(name)))
            if scale:
                varies = xp.astype(~pair.constant(name), xp.float64)
                unit = varies / standard_deviations(pair, name)
            traces.append(float(xp.sum(sample.variance(name))) / pair.width(name))
            units.append(unit / (traces[-1] ** 0.5 or 1.0))
        c = aligned_constant(sample, *names) if target == "aligned" else 0.0
        scaled = pair.scaled(xp.concat(units))
        # T^(-1/2) is a mixture of the two views: with it the problem is symmetric.
        plus, minus = (1 + c) ** -0.5, (1 - c) ** -0.5
        a, b = (plus + minus) / 2, (plus - minus) / 2
        whole = scaled.mixed(*names, a, b) if c else scaled

        def of_block(name: str | None) -> Reduced:
            of = scaled if name else whole
            if to_rank:
                return of.reduced(name)
            values, vectors = of.eigenpairs(name)
            return Reduced(Tridiagonal(values), vectors)

        # The joint takes most of the time: the views go beside it where a core is free.
        found = thread_map(of_block, (None, *names), inline=is_inline(scaled))
        p, q = map(pair.width, names)
        rests = [n - one.T.order for n, one in zip((p + q, p, q), found, strict=True)]
        if any(rests):
            found = [one.as_inner() for one in found]
        V = found[0].vectors
        vectors = [(V[:p, :], V[p:, :]), (found[1].vectors,), (found[2].vectors,)]
        if c:
            left, right = vectors[0]
            vectors[0] = a * left + b * right, b * left + a * right
        joint, *own = (
            _Part(one.T, tuple(u[:, None] * v for u, v in zip(us, vs, strict=True)), one.inner, n)
            for one, us, vs, n in zip(
                found, (units, units[:1], units[1:]), vectors, rests, strict=True
            )
        )
        means = pair.mean(names[0]), pair.mean(names[1])
        single = to_rank and p + q >= SINGLE_FROM
        return cls(names, means, (units[0], units[1]), c, joint, (own[0], own[1]), single)

    @property
    def _complete(self) -> bool:
        """Whether no eigenvalue is left out, and 1 / s is not subtracted from the precisions."""
        return not any(part.rest for part in (self.joint, *self.own))

    def _pivots(self, s: float) -> tuple[list[Pivots], float, float]:
        """Of the joint and the views; the constant; the weight of what the target adds by itself.

        Raises
        ------
        ValueError
            If s is out of range, or 0 where a covariance is singular or may be.
        """
        T = self.joint.T
        invertible = self._complete and T.beside is None and bool(T.diagonal[-1] > 0)
        if not (0 < s <= 1 or (s == 0 and invertible)):
            raise ValueError(
                f"s={s!r}: a shrinkage is in [0, 1], and above 0 where there are more columns than "
                "rows or dependent ones"
            )
        found = [part.T.pivots(s) for part in (self.joint, *self.own)]
        constant = -0.5 * (found[0].logdet - found[1].logdet - found[2].logdet)
        c2 = self.constant**2
        constant -= 0.5 * int(self.means[0].shape[0]) * math.log1p(-c2)
        if self._complete:
            return found, constant, 0.0
        rest = self.joint.rest - self.own[0].rest - self.own[1].rest
        return found, constant - 0.5 * rest * math.log(s), 1 / (s * (1 - c2))

    def on(self, X: Any, Y: Any) -> PathScores:
        """The scores of all pairs of rows of both views, in the precision of the rows.

        Parameters
        ----------
        X, Y : arrays or sparse matrices of shape (n, p), (m, q)

        Returns
        -------
        PathScores
            ``.at(s)``, shape (n, m), for any s.
        """
        return self.between(self.side(X, 0), self.side(Y, 1))

    def side(self, rows: Any, i: int) -> PathSide:
        """Rows of the first view (i = 0) or of the second (i = 1), projected once for all pairs."""
        where = "X" if i == 0 else "y"
        parts = (self.joint.vectors[i], self.own[i].vectors[0])
        joint, own = (project(rows, self.means[i], V, where).mT for V in parts)
        plain = self._plain(rows, i) if self.constant and not self._complete else None
        xp = namespace(joint)
        if self.single:
            joint, own = (xp.astype(a, xp.float32, copy=False) for a in (joint, own))
            plain = None if plain is None else xp.astype(plain, xp.float32, copy=False)
        if self.own[i].T.beside is not None:
            own = np.ascontiguousarray(own)
        if self.joint.T.beside is not None:
            joint = np.ascontiguousarray(joint)
        subtracted = None if self._complete or self.own[i].inner else xp.sum(own * own, axis=0)
        return PathSide(joint, own, subtracted, plain)

    def between(self, x: PathSide, y: PathSide) -> PathScores:
        """The scores of all pairs of rows of two sides."""
        direct = None
        if x.plain is not None and y.plain is not None:
            xp, c = namespace(x.plain, y.plain), self.constant
            squares = [c * c / 2 * xp.sum(a * a, axis=1) for a in (x.plain, y.plain)]
            direct = c * (x.plain @ y.plain.mT) - squares[0][:, None] - squares[1][None, :]
        return PathScores(self, x, y, direct)

    def _plain(self, rows: Any, i: int) -> Array:
        """Centred rows in the units of the shrinkage."""
        xp = namespace(self.units[i])
        if hasattr(rows, "toarray"):
            rows = rows.toarray()
        a = xp.astype(rows, result_dtype(rows), copy=False)
        return (a - xp.astype(self.means[i], a.dtype)) * xp.astype(self.units[i], a.dtype)

    def expected_ratio(self, moments: Moments, shrinkages: Sequence[float]) -> list[float]:
        """The mean of log p(x, y) - log p(x) - log p(y) over held-out pairs, for each s.

        Parameters
        ----------
        moments : Moments
            Of the held-out rows.
        shrinkages : sequence of float
        """
        a, b = self.names
        xp = namespace(self.joint.T.diagonal)
        shifts = [moments.mean(n) - m for n, m in zip(self.names, self.means, strict=True)]

        def second(i: int, j: int, left: Array, right: Array) -> Array:
            """E[(x left)(y right)] of the columns."""
            S = moments.projected_scatter(self.names[i], self.names[j], right)
            centred = xp.sum(left * S, axis=0) / moments.n
            return centred + (shifts[i] @ left) * (shifts[j] @ right)

        V = self.joint.vectors
        product, squares = second(0, 1, *V), [second(i, i, V[i], V[i]) for i in (0, 1)]
        own = [second(i, i, e.vectors[0], e.vectors[0]) for i, e in enumerate(self.own)]
        direct = 0.0
        if self.constant and not self._complete:
            c, (ux, uy) = self.constant, self.units
            shared = float(xp.sum(ux * uy * self._diagonal(moments, a, b, shifts)))
            norms = [
                float(xp.sum(u * u * (moments.variance(n, ddof=0) + t * t)))
                for n, u, t in zip(self.names, self.units, shifts, strict=True)
            ]
            direct = c * shared - c * c / 2 * sum(norms)
        found = []
        for s in shrinkages:
            (joint, *views), constant, gain = self._pivots(s)
            w = self.joint.gain(s) * joint.roots**2
            own_w = [e.gain(s) * view.roots**2 for e, view in zip(self.own, views, strict=True)]
            value = -float(xp.sum(w * product)) + constant + gain * direct
            for square, of_view, weights in zip(squares, own, own_w, strict=True):
                value -= 0.5 * (float(xp.sum(w * square)) - float(xp.sum(weights * of_view)))
            found.append(value)
        return found

    @staticmethod
    def _diagonal(moments: Moments, a: str, b: str, shifts: Sequence[Array]) -> Array:
        """E[x_i y_i] of views of one width."""
        return moments.paired_scatter(a, b) / moments.n + shifts[0] * shifts[1]


@dataclass(frozen=True)
class PathSide:
    """Rows of a view as columns, in the coordinates V of the joint and of its own covariance.

    `subtracted` are their squared norms, where 1 / s is subtracted from a precision in which no
    eigenvalue is left out. `plain` are the centred rows in the units of the shrinkage, where the
    scores need them.
    """

    joint: Array
    own: Array
    subtracted: Array | None
    plain: Array | None


@dataclass(frozen=True)
class PathScores:
    """Scores of all pairs of some rows at every shrinkage of a `LikelihoodPath`."""

    path: LikelihoodPath
    x: PathSide
    y: PathSide
    direct: Array | None = None

    def at(self, s: float) -> Array:
        """log p(x, y) - log p(x) - log p(y) of all pairs at shrinkage s, shape (n, m)."""
        path = self.path
        (joint, *views), constant, gain = path._pivots(s)
        rows, terms = [], []
        for side, of_view, own in zip((self.x, self.y), views, path.own, strict=True):
            coordinates, squares = joint.solve(side.joint)
            own_squares = own.gain(s) * of_view.solve(side.own)[1]
            if side.subtracted is not None:
                own_squares = own_squares - side.subtracted / s
            rows.append(coordinates)
            terms.append(0.5 * (own_squares - path.joint.gain(s) * squares))
        xp, dtype = namespace(rows[0]), rows[0].dtype
        left, right = (
            xp.astype(term, dtype, copy=False) for term in (terms[0] + constant, terms[1])
        )
        scores = (-path.joint.gain(s) * rows[0]).mT @ rows[1]
        scores = scores + (left[:, None] + right[None, :])
        return scores if self.direct is None else scores + gain * self.direct
