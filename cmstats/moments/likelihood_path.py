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
columns than rows, the directions in which the data vary suffice: outside of them every weight is
1 / s, which is subtracted from all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cmstats.arrays import Array, float64, namespace, result_dtype
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Target, aligned_constant, standard_deviations
from cmstats.moments.sums import SINGLE_FROM
from cmstats.rows.chunks import project

__all__ = ["LikelihoodPath", "PathScores", "PathSide"]


@dataclass(frozen=True)
class _Eigen:
    """Eigenvalues l, and vectors V by block in the data's units; `rest` of them are 0."""

    values: Array
    vectors: tuple[Array, ...]
    rest: int


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
    joint, own : _Eigen, and a pair of these
    single : bool
        Whether scores are computed in single precision, whatever that of the rows is.
    """

    names: tuple[str, str]
    means: tuple[Array, Array]
    units: tuple[Array, Array]
    constant: float
    joint: _Eigen
    own: tuple[_Eigen, _Eigen]
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
        values, V = (scaled.mixed(*names, a, b) if c else scaled).eigenpairs(to_rank=to_rank)
        parts = V[: pair.width(names[0]), :], V[pair.width(names[0]) :, :]
        if c:
            parts = a * parts[0] + b * parts[1], b * parts[0] + a * parts[1]
        d = sum(map(pair.width, names))
        joint = _Eigen(
            values,
            tuple(u[:, None] * v for u, v in zip(units, parts, strict=True)),
            d - int(values.shape[0]),
        )
        own = []
        for name, unit in zip(names, units, strict=True):
            values, U = scaled.eigenpairs(name, to_rank=to_rank)
            rest = pair.width(name) - int(values.shape[0])
            own.append(_Eigen(values, (unit[:, None] * U,), rest))
        means = pair.mean(names[0]), pair.mean(names[1])
        single = to_rank and d >= SINGLE_FROM
        return cls(names, means, (units[0], units[1]), c, joint, (own[0], own[1]), single)

    @property
    def _complete(self) -> bool:
        """Whether the data vary in all directions."""
        return not (self.joint.rest or self.own[0].rest or self.own[1].rest)

    def _weights(self, part: _Eigen, s: float) -> Array:
        """The weights of the squares in a precision matrix, less 1 / s where that is subtracted."""
        if self._complete:
            return 1 / ((1 - s) * part.values + s)
        return -(1 - s) * part.values / (s * ((1 - s) * part.values + s))

    def _terms(self, s: float) -> tuple[Array, list[Array], float, float]:
        """w, (w_a, w_b), the constant, and the weight of what the target adds by itself."""
        if not (0 < s <= 1 or (s == 0 and self._complete)):
            raise ValueError(
                f"s={s!r}: a shrinkage is in [0, 1], and above 0 where there are more columns than "
                "rows or dependent ones"
            )
        xp = namespace(self.joint.values)

        def logdet(part: _Eigen) -> float:
            return float(xp.sum(xp.log((1 - s) * part.values + s)))

        constant = -0.5 * (logdet(self.joint) - sum(map(logdet, self.own)))
        p = self.means[0].shape[0]
        c2 = self.constant**2
        if c2:
            one = xp.asarray(c2, dtype=xp.float64)
            constant -= 0.5 * p * float(xp.log1p(-one))
        if self._complete:
            direct = 0.0
        else:
            log_s = float(xp.log(xp.asarray(s, dtype=xp.float64)))
            rest = self.joint.rest - self.own[0].rest - self.own[1].rest
            constant -= 0.5 * rest * log_s
            direct = 1 / (s * (1 - c2))
        own = [self._weights(part, s) for part in self.own]
        return self._weights(self.joint, s), own, constant, direct

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
        joint = project(rows, self.means[i], self.joint.vectors[i], where)
        own = project(rows, self.means[i], self.own[i].vectors[0], where)
        plain = self._plain(rows, i) if self.constant and not self._complete else None
        if self.single:
            xp = namespace(joint)
            joint, own = (xp.astype(a, xp.float32, copy=False) for a in (joint, own))
            plain = None if plain is None else xp.astype(plain, xp.float32, copy=False)
        return PathSide(joint, joint * joint, own * own, plain)

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
        xp = namespace(self.joint.values)
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
            w, own_w, constant, gain = self._terms(s)
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
    """Rows of a view in the joint's eigenvectors, the squares of these, and of its own.

    `plain` are the centred rows in the units of the shrinkage, where the scores need them.
    """

    joint: Array
    joint_squares: Array
    own_squares: Array
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
        w, own_w, constant, gain = self.path._terms(s)
        xp = namespace(self.x.joint)
        dtype = self.x.joint.dtype
        w = xp.astype(w, dtype)
        terms = [
            0.5 * (side.own_squares @ xp.astype(of_view, dtype) - side.joint_squares @ w)
            for side, of_view in zip((self.x, self.y), own_w, strict=True)
        ]
        scores = (self.x.joint * -w) @ self.y.joint.mT
        scores = scores + ((terms[0] + constant)[:, None] + terms[1][None, :])
        return scores if self.direct is None else scores + gain * self.direct
