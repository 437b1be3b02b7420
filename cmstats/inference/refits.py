"""Fits to resampled rows, with components aligned to those of the fit to all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import has_fit_parameter

from cmstats.arrays import (
    as_counts,
    check_given,
    check_weights,
    is_dask,
    needs_memory,
    once,
    recorded,
    take_rows,
    to_numpy,
    warn,
)
from cmstats.inference.scores import takes_groups
from cmstats.rows.chunks import check_lengths
from cmstats.rows.dependence import independence_notes
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.progress import progress_bar
from cmstats.rows.splits import check_groups, fold_ids, numbered

__all__ = ["Align", "Refits", "alignment", "said_once"]

Align = Literal["procrustes", "match"]


class Refits:
    """An estimator, its fit to all rows, and fits to weights of the rows."""

    def __init__(
        self, estimator: Any, X: Any, y: Any, sample_weight: Any, groups: Any = None
    ) -> None:
        check_row_labels({"X": X, "y": y, "sample_weight": sample_weight, "groups": groups})
        self.estimator, self.X, self.y = estimator, _rows_of(X, "X"), _rows_of(y, "y")
        check_lengths({"X": self.X, "y": self.y})
        n = int(self.X.shape[0])
        weights = check_weights(sample_weight, n)
        self.weights = np.ones(n) if weights is None else as_counts(to_numpy(weights))
        if not self.weights.sum() < 2**62:
            raise ValueError(
                f"sample_weight adds up to {self.weights.sum():.1g} rows, more than can be drawn: "
                "divide it by a constant"
            )
        self.weighted = has_fit_parameter(estimator, "sample_weight")
        if sample_weight is not None and not self.weighted:
            raise ValueError(f"{type(estimator).__name__}.fit takes no sample_weight")
        given: dict[str, Any] = {} if sample_weight is None else {"sample_weight": self.weights}
        self.groups = None if groups is None else check_groups(groups, n)
        # A fit that chooses a parameter by folds keeps groups, and copies of a row, together.
        self.grouped = takes_groups(estimator)
        if self.grouped and groups is not None:
            given["groups"] = self.groups
        for note in independence_notes(
            {"X": self.X, "y": self.y}, None if self.groups is None else numbered(self.groups)[0],
            "standard errors and intervals are too small: pass groups=",
        ):  # fmt: skip
            warn(note)
        self.whole = clone(estimator).fit(self.X, self.y, **given)
        if not self.weighted and not self.grouped and _chooses(estimator):
            warn(
                f"{type(estimator).__name__} chooses a parameter by folds that take no groups, so "
                "that copies of a row in a resample fall into different folds and the choice is "
                "too optimistic: choose on all rows first, and pass the estimator with the values "
                "found"
            )

    def measured(self, fits: Iterable[Any], measure: Callable[[Any], Any], what: str) -> list[Any]:
        """What `measure` finds of the fit to each set of weights; those that fail are left out.

        Parameters
        ----------
        fits : iterable of weights
        measure : callable
            A function of the fitted estimator that returns an array, or several.
        what : str
            What a set of weights is, in messages.

        Raises
        ------
        ValueError
            If more than half fail, or fewer than two are left.
        """
        found, tried, errors = [], 0, []
        for weights in fits:
            tried += 1
            try:
                found.append(measure(self.fit(weights)))
            except (ValueError, ArithmeticError) as error:  # LinAlgError is a ValueError
                errors.append(error)
        if errors and (len(found) < 2 or 2 * len(errors) > tried):
            raise ValueError(
                f"{len(errors)} of {tried} {what} could not be used, too many to leave out; the "
                f"first: {errors[0]}"
            ) from errors[0]
        if errors:
            warn(
                f"{len(errors)} of {tried} {what} could not be used and are left out; the first: "
                f"{errors[0]}"
            )
        return found

    def fit(self, weights: Any) -> Any:
        """A clone fitted with these frequency weights, or to repeated rows."""
        fit, groups = clone(self.estimator).fit, self.groups
        if self.weighted:
            given = {} if groups is None or not self.grouped else {"groups": groups}
            return fit(self.X, self.y, sample_weight=weights, **given)
        at = np.repeat(np.arange(len(weights)), weights.astype(int))
        given = {"groups": at if groups is None else groups[at]} if self.grouped else {}
        return fit(*(take_rows(a, at) for a in (self.X, self.y)), **given)

    def resamples(self, count: int, random_state: Any, verbose: bool) -> Iterator[Any]:
        """Multinomial counts of the rows, whose total is the weight of the data; or of the groups.

        Of G groups as many are drawn, with replacement, each with all of its rows.
        """
        random = check_random_state(random_state)
        total = self.weights.sum()
        of_row: Any = None
        if self.groups is not None:
            of_row = numbered(self.groups)[0]
        for _ in progress_bar(verbose, "resamples", "it", items=range(count)):
            if of_row is None:
                yield random.multinomial(round(total), self.weights / total).astype(np.float64)
            else:
                size = of_row.max() + 1
                yield self.weights * random.multinomial(size, np.full(size, 1 / size))[of_row]

    def without_folds(self, cv: Any) -> Iterator[Any]:
        """The weights with those of fold j set to zero, for each j."""
        n = len(self.weights)
        if isinstance(cv, (int, np.integer)):
            cv = min(cv, n if self.groups is None else len(np.unique(self.groups)))
        ids = fold_ids(cv, n, groups=self.groups)
        for k in range(ids.max() + 1):
            yield np.where(ids == k, 0.0, self.weights)

    def variates(self, fitted: Any) -> tuple[Any, Any]:
        """The variates of all rows in both views, centred, weighted, with columns of norm 1."""
        both = fitted.transform(self.X, self.y) if hasattr(fitted, "transform") else None
        if not isinstance(both, (tuple, list)) or len(both) != 2:
            raise TypeError(
                f"{type(fitted).__name__} has no components in two views to compare: pass an "
                "estimator whose transform(X, y) returns the variates of both, such as CCA"
            )
        out = []
        for a in both:
            a = to_numpy(a).astype(np.float64) * np.sqrt(self.weights)[:, None]
            root = np.sqrt(self.weights / self.weights.sum())
            a = a - np.outer(root, root @ a)
            norm = np.linalg.norm(a, axis=0)
            out.append(a / np.where(norm > 0, norm, 1.0))
        return out[0], out[1]

    @property
    def reference(self) -> tuple[Any, Any]:
        """The variates of the fit to all rows."""
        return self.variates(self.whole)


def alignment(reference: tuple[Any, Any], found: tuple[Any, Any], how: Align) -> Any:
    """The orthogonal matrix R that aligns variates to the reference, one R for both views.

    "procrustes" maximises tr(R' C) over rotations and reflections (Schoenemann 1966), with C the
    sum over views of the cross products; "match" over signed permutations.
    """
    if reference[0].shape[1] != found[0].shape[1]:
        raise ValueError(
            f"all rows give {reference[0].shape[1]} components and a resample "
            f"{found[0].shape[1]}: set n_components lower"
        )
    C = sum(b.T @ a for a, b in zip(reference, found, strict=True))
    if how == "procrustes":
        u, _, vt = np.linalg.svd(C)
        return u @ vt
    rows, columns = linear_sum_assignment(-np.abs(C))
    matching = np.zeros_like(C)
    matching[rows, columns] = np.where(C[rows, columns] < 0, -1.0, 1.0)
    return matching


def _chooses(estimator: Any) -> bool:
    """Whether a fit chooses parameters by folds: one that is "cv", or a search of scikit-learn."""
    chosen = (isinstance(v, str) and v == "cv" for v in estimator.get_params().values())
    return any(chosen) or any(hasattr(estimator, a) for a in ("param_grid", "param_distributions"))


@contextmanager
def said_once(where: str) -> Iterator[None]:
    """Issue each warning of a series of fits once, after the last fit."""
    with recorded() as caught:
        yield
    for message, category in once(caught):
        warn(f"{where}: {message}", category)


def _rows_of(a: Any, name: str) -> Any:
    """Arrays and frames as they are, lists as NumPy arrays."""
    if is_dask(a):
        raise needs_memory(name)
    check_given(a, name)
    return a if hasattr(a, "shape") else np.asarray(a)
