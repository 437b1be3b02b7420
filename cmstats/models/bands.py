"""Bands of features, each with a penalty of its own, from moments: banded ridge regression.

With weights gamma of the bands and D^2 those of the features the coefficients are
w = D (D S_xx D + alpha I)^-1 D S_xy: a ridge regression on features in other units.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from cmstats.arrays import Array, device_of, namespace, to_numpy
from cmstats.kernels.threads import thread_map
from cmstats.models.ridge import Spectrum, about_plane, fold_scores, mean_scores
from cmstats.moments.folds import is_inline, scored_where_observed, training_moments
from cmstats.moments.moments import Moments
from cmstats.moments.sums import Part
from cmstats.moments.tasks import with_tasks

__all__ = ["Bands", "band_scores", "band_shares", "band_weights", "by_weights", "label_codes"]
__all__ += ["weight_rows"]

HostArray = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Bands:
    """The names of bands, and the number of the band of each feature."""

    names: tuple[Any, ...]
    codes: HostArray

    @classmethod
    def of(cls, given: Any, width: int, views: Mapping[str, slice], columns: Any) -> Bands:
        """The bands that a user describes.

        Parameters
        ----------
        given : "views", array of shape (p,), or mapping of name to columns
        width : int
            p.
        views : mapping of name to slice
            Where each view of X stands, if there are several.
        columns : sequence of str or None
            The names of the features, where they have some.
        """
        if isinstance(given, str):
            if not views:
                raise ValueError(
                    "bands='views' needs several views: pass X as a list or a dict of them, or "
                    "bands as one label for each feature"
                )
            given = {name: range(width)[at] for name, at in views.items()}
        if isinstance(given, Mapping):
            return cls(tuple(given), _codes(given, width, columns))
        return cls(*label_codes(given, width, "bands", "X"))

    def __len__(self) -> int:
        return len(self.names)

    def units(self, weights: HostArray) -> HostArray:
        """The root of the weight of each feature's band, shape (p,)."""
        roots: HostArray = np.sqrt(weights)[self.codes]
        return roots


@dataclass(frozen=True)
class Turn:
    """Features in coordinates in which each band has at most as many as its rows span.

    Weights scale whole bands, so that all candidates share these coordinates.

    Attributes
    ----------
    bands : Bands
        Of the new features.
    parts : list
        The features of each band, and the basis of the new ones (`Moments.turned`).
    """

    bands: Bands
    parts: list[Part]

    @classmethod
    def of(cls, moments: Moments, bands: Bands) -> Turn | None:
        """Of training moments; None where no band gets narrower."""
        at = moments.columns("x")
        members = [np.flatnonzero(bands.codes == b) for b in range(len(bands))]
        parts = [(own, moments.sums.span(at, own)) for own in members]
        if all(basis is None for _, basis in parts):
            return None
        widths = [len(own) if basis is None else int(basis.shape[1]) for own, basis in parts]
        return cls(Bands(bands.names, np.repeat(np.arange(len(bands)), widths)), parts)

    def back(self, vectors: Array) -> Array:
        """Vectors in the new features as vectors in the old ones."""
        xp, device, at = namespace(vectors), device_of(vectors), 0
        rows = []
        for own, basis in self.parts:
            width = len(own) if basis is None else int(basis.shape[1])
            part = vectors[at : at + width, :]
            rows.append(part if basis is None else basis @ part)
            at += width
        order = np.argsort(np.concatenate([own for own, _ in self.parts]))
        return xp.take(xp.concat(rows), xp.asarray(order, device=device), axis=0)


def label_codes(
    given: Any, width: int, parameter: str, view: str
) -> tuple[tuple[Any, ...], HostArray]:
    """The labels of the columns of a view, each once, and the number of each column's, (p,).

    Sorted, so that the order of the columns does not matter; numbers before text.
    """
    listed = isinstance(given, (list, tuple))
    if listed and any(isinstance(one, (list, tuple, set, range, np.ndarray)) for one in given):
        lists = ", or a dict of names to columns" if parameter == "bands" else ""
        raise ValueError(
            f"{parameter} is a list of lists: give one label for each of the {width} columns of "
            f"{view}{lists}"
        )
    labels = np.asarray(given if listed else to_numpy(given))
    if labels.shape != (width,):
        raise ValueError(
            f"{parameter} has shape {labels.shape}, but {view} has {width} columns: give one label "
            "for each"
        )
    each = labels.tolist()
    missing = [at for at, label in enumerate(each) if label is None or label != label]
    if missing:
        raise ValueError(
            f"{parameter} has no label for column {missing[0]}: give one for each column"
        )
    names = sorted(set(each), key=lambda label: (isinstance(label, str), label))
    number = {name: i for i, name in enumerate(names)}
    return tuple(names), np.array([number[label] for label in each])


def _codes(given: Mapping[Any, Any], width: int, columns: Any) -> HostArray:
    """The band of each feature, where bands say their columns."""
    known = {} if columns is None else {name: i for i, name in enumerate(columns)}
    names, codes = [*given], np.full(width, -1)
    for number, (name, members) in enumerate(given.items()):
        members = range(width)[members] if isinstance(members, slice) else members
        listed = np.ravel(np.asarray(members, dtype=object)).tolist()
        if not listed:
            raise ValueError(f"band {name!r} has no column: leave it out")
        for one in listed:
            at: Any = known.get(one) if isinstance(one, str) else one
            known_at = isinstance(at, Integral) and not isinstance(at, bool)
            if not (known_at and 0 <= int(at) < width):
                raise ValueError(
                    f"band {name!r} has column {one!r}, which X does not have: bands take numbers "
                    f"of columns from 0 to {width - 1}, or names that fit sees in frames"
                )
            if codes[at] >= 0:
                raise ValueError(
                    f"column {one!r} is in two bands, {names[codes[at]]!r} and {name!r}: a "
                    "feature has one penalty"
                )
            codes[at] = number
    if (codes < 0).any():
        raise ValueError(
            f"{int((codes < 0).sum())} of {width} features are in no band (the first is column "
            f"{int(np.argmax(codes < 0))}): each feature needs one"
        )
    return codes


def band_weights(count: int, given: Any, random_state: Any) -> HostArray:
    """Candidates of the weights of bands, which add up to 1: shape (n_candidates, n_bands).

    Parameters
    ----------
    count : int
        The number of bands.
    given : int or array of shape (n_candidates, n_bands) or (n_bands,)
        A number of candidates: the centre of the simplex, its corners, and draws from Dirichlet
        distributions of concentration 1 and .1 in turn, even and sparse ones (la Tour et al.
        2022).
    random_state : int, RandomState or None
    """
    if isinstance(given, Integral):
        corners = [
            np.full((1, count), 1 / count),
            *np.eye(count)[: count if count > 1 else 0, None],
        ]
        rng, drawn = check_random_state(random_state), int(given) - len(corners) if count > 1 else 0
        draws = [rng.dirichlet(np.full(count, (1.0, 0.1)[i % 2]))[None, :] for i in range(drawn)]
        return np.concatenate([*corners, *draws])
    weights = weight_rows(given)
    if weights.ndim != 2 or weights.shape[1] != count or not len(weights):
        raise ValueError(
            f"band_weights has shape {np.shape(given)}, but there are {count} bands: give one row "
            "of weights for each candidate, or the number of candidates"
        )
    if (far := np.abs(weights.sum(axis=1) - 1) > 1e-6).any():
        raise ValueError(
            f"the weights of candidate {int(np.argmax(far))} in band_weights add up to "
            f"{weights.sum(axis=1)[np.argmax(far)]:.4g}: they must add up to 1"
        )
    return weights


def weight_rows(given: Any) -> HostArray:
    """Weights of bands that are given, as an array of at least two axes."""
    try:
        weights = np.atleast_2d(np.asarray(to_numpy(given)))
    except ValueError:  # of lists of different lengths
        raise ValueError("band_weights must have as many weights for each candidate") from None
    if weights.dtype.kind not in "iuf" or not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("band_weights must be finite numbers that are not negative")
    return weights.astype(np.float64)


def band_scores(
    folds: list[Moments], bands: Bands, candidates: HostArray, alphas: Sequence[float],
    intercept: bool, said: list[str],
) -> tuple[HostArray, HostArray]:  # fmt: skip
    """The best held-out R2 of each candidate, as `ridge.search` has it, and its penalty.

    One eigendecomposition for each candidate and fold. Two arrays of shape (n_candidates, q);
    `said` takes sentences about folds without a score.
    """
    total = functools.reduce(operator.add, folds)
    inline = is_inline(total)

    def of_fold(train: Moments, test: Moments) -> list[HostArray]:
        turn, own = Turn.of(about_plane(train, intercept), bands), bands
        if turn is not None:
            train, test = (m.turned("x", turn.parts) for m in (train, test))
            own = turn.bands

        def work(weights: HostArray) -> tuple[HostArray, HostArray]:
            return fold_scores(train, test, alphas, None, intercept, own.units(weights))

        found = thread_map(work, [*candidates], inline=inline)
        return [np.stack(each) for each in zip(*found, strict=True)]

    found = (
        scored_where_observed(functools.partial(of_fold, train, folds[k]), k, train, said)
        for k, train in enumerate(training_moments(folds))
    )
    scores = mean_scores(found, folds, total, said)[:, :, 0, :]
    return scores.max(axis=1), np.array(alphas)[scores.argmax(axis=1)]


def by_weights(
    groups: Mapping[tuple[int, ...], Moments], bands: Bands, weights: HostArray, intercept: bool
) -> dict[tuple[int, ...], tuple[Moments, Spectrum]]:
    """The groups of targets parted by their weights, with moments and spectra of each.

    Parameters
    ----------
    groups : mapping of targets to Moments
    bands : Bands
    weights : array of shape (q, n_bands)
    intercept : bool
    """
    parts = {}
    for tasks, m in groups.items():
        turn = Turn.of(about_plane(m, intercept), bands)
        own, which = np.unique(weights[list(tasks)], axis=0, return_inverse=True)
        for k, each in enumerate(own):
            at = tuple(np.array(tasks)[which.ravel() == k].tolist())
            part = with_tasks(m, tasks, at)
            assert part is not None
            if turn is None:
                spectrum = Spectrum.of(about_plane(part, intercept), bands.units(each))
            else:
                small = about_plane(part.turned("x", turn.parts), intercept)
                spectrum = Spectrum.of(small, turn.bands.units(each))
                spectrum = replace(spectrum, vectors=turn.back(spectrum.vectors))
            parts[at] = part, spectrum
    return parts


def band_shares(
    moments: Moments | None, point: tuple[Array, Array], weights: Array, bands: Bands
) -> Array:
    r"""R2 of targets split by band (product measure), shape (n_bands, q); NaN without moments.

    With the part :math:`f_b` of a prediction f that band b makes, about the means of the rows,

    .. math:: R^2_b = \frac{f_b'(2y - f) - n g g_b}{y'y}

    where g is the distance of the means from the fitted plane, of which :math:`g_b` is the part
    that goes through band b and an equal share of the rest. Columns add up to R2.

    Parameters
    ----------
    moments : Moments or None
        Of held-out rows.
    point : arrays of shape (p,) and (q,)
        One that the fitted plane passes through.
    weights : array of shape (p, q)
    bands : Bands
    """
    xp, device, count = namespace(weights), device_of(weights), len(bands)
    nan = xp.asarray(float("nan"), dtype=xp.float64, device=device)
    if moments is None:
        return xp.stack([0 * point[1] + nan] * count)
    gap_x, gap_y = moments.mean("x") - point[0], moments.mean("y") - point[1]
    explained = 2 * moments.scatter("x", "y") - moments.projected_scatter("x", "x", weights)
    member = np.equal.outer(np.arange(count), bands.codes).astype(np.float64)
    member = xp.asarray(member, device=device)
    through = gap_y / count - member @ (gap_x[:, None] * weights)
    shares = member @ (weights * explained) - moments.n * (gap_y - gap_x @ weights) * through
    constant, total = moments.constant("y"), moments.variance("y", ddof=0) * moments.n
    return shares / xp.where(constant, nan, total)
