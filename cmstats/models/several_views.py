"""The base of models of two or more named views, given as a list or a dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array
from cmstats.models.base import MomentsModel
from cmstats.models.dask import row_wise
from cmstats.models.latent import LatentViews
from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Target, check_aligned, shrinkage_tuple
from cmstats.rows.chunks import project
from cmstats.rows.pairs import warn_of_ids
from cmstats.rows.views import NamedViews, is_stream

__all__ = ["SeveralViews"]


class SeveralViews(LatentViews, MomentsModel):
    """Named views in place of X and y; what comes out is a list or a dict as what was given."""

    shrinkage: Any
    target: Target
    missing: str
    _named: NamedViews

    def _blocks(self, views: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        if y is not None:
            raise ValueError(
                f"{type(self).__name__} takes all views in its first argument, a list or dict: "
                "pass [X, y]; labels are one more view, one column for each"
            )
        if not reset:
            return self._named.complete(views)
        known, blocks = NamedViews.first(views)
        self._know(known)
        check_aligned(self.target, dict(zip(known.names, known.widths, strict=True)))
        warn_of_ids(blocks, self._column_names())
        return blocks

    def _column_names(self) -> dict[str, Any]:
        known = self._named
        return {k: v for k, v in zip(known.names, known.columns, strict=True) if v is not None}

    def _know_blocks(self, parts: list[Moments]) -> None:
        names = [parts[0].column_names.get(block) for block in parts[0].names]
        self._know(NamedViews.of_blocks(parts[0].names, parts[0].widths, names))

    def _know(self, views: NamedViews) -> None:
        self._named, self.view_names_ = views, views.names
        if any(names is not None for names in views.columns):
            self.feature_names_in_ = views.as_fitted(views.columns)
        self._shrinkage_of_blocks(views.names)

    def _is_stream(self, views: Any, y: Any) -> bool:
        return is_stream(views, y, several=True)

    def _of_batch(self, batch: Any, number: int) -> tuple[Any, ...]:
        return (batch,)

    @staticmethod
    def _own(moments: Moments) -> Moments:
        return moments

    def _shrinkage_of_blocks(self, names: Sequence[str]) -> tuple[Any, ...]:
        value = self.shrinkage
        if isinstance(value, Mapping):
            if set(value) != set(names):
                raise ValueError(
                    f"shrinkage names the views {', '.join(map(str, value))}, but the views are "
                    f"{', '.join(names)}: give one value for each of them"
                )
            value = tuple(value[name] for name in names)
        return shrinkage_tuple(value, len(names))

    def _given(self, views: Any, y: Any = None) -> dict[str, tuple[Any, Any]]:
        em = self.missing == "em"
        rows = self._named.given(views, ensure_finite="allow-nan" if em else True)
        like = self._named.in_order(views)
        return {a: (self._filled(r, a) if em else r, like[a]) for a, r in rows.items()}

    def _returned(self, found: dict[str, Any], *views: Any) -> Any:
        return self._named.as_given(views[0], found)

    def _projection(self, view: str) -> tuple[Array, Array]:
        known = self._named
        return known.in_order(self.means_)[view], known.in_order(self.weights_)[view]

    def _coordinates(self, rows: Any, view: str) -> Array:
        return project(rows, *self._projection(view), view)

    def fit(
        self, views: Any, y: None = None, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Fit to rows that are observed in every view, in one pass over them.

        Parameters
        ----------
        views : list or dict of array-likes of shape (n_samples, p_i)
            Two or more views, named if a dict; row i of each is the same item. Arrays of any
            library, frames, sparse matrices, memory-maps. Or an iterator of batches, each such
            a list or dict.
        y : None
            Not used; for scikit-learn's tools. Labels are one more view.
        sample_weight : array of shape (n_samples,), optional
            Frequency weights: weight 2 is the row twice.
        groups : array of shape (n_samples,), optional
            Labels of rows that depend on each other, which are in one fold where `shrinkage` is
            "cv" (`Moments.folds`).

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there is one view or one row, a view is None, values are not finite, lengths
            differ, or a parameter is out of range.
        """
        return super().fit(views, y, sample_weight, groups)

    def partial_fit(
        self, views: Any, y: None = None, sample_weight: Any = None, groups: Any = None
    ) -> Self:
        """Add rows to those fitted so far; the result is that of `fit` on all of them.

        Row number i overall belongs to fold i mod `cv` where `shrinkage` is "cv". Each call
        solves anew: for very many small batches build `Moments.from_batches` and call
        `fit_moments` once.

        Parameters
        ----------
        views, y, sample_weight, groups
            As in `fit`.

        Returns
        -------
        self
        """
        return super().partial_fit(views, y, sample_weight, groups)

    @row_wise
    def transform(self, views: Any) -> Any:  # type: ignore[override]
        """The variates of each view that is given.

        Parameters
        ----------
        views : list or dict of array-likes of shape (n_i, p_i)
            None for a view that was not observed; a dict may leave it out.

        Returns
        -------
        list or dict of arrays of shape (n_i, n_components_)
            As given: a list for a list, a dict for a dict; None for None.

        Raises
        ------
        ValueError
            If no view is given, a name is unknown, or widths or values are not right.
        """
        return self._each(lambda a, view, given: self._wrap(a, given, self._prefix(view)), views)

    def _prefix(self, view: str) -> str:
        """The view whose name the columns of a frame of variates begin with, but the first."""
        return "x" if view == self.view_names_[0] else view

    def fit_transform(
        self, views: Any, y: None = None, sample_weight: Any = None, groups: Any = None
    ) -> Any:
        """``fit(views).transform(views)``."""
        return super().fit_transform(views, y, sample_weight, groups)

    @row_wise
    def inverse_transform(self, views: Any) -> Any:  # type: ignore[override]
        r"""Rows of each view from its variates.

        The conditional mean of a view given its variates under the joint Gaussian model,

        .. math:: E[x \mid u] = \bar x + S_{xx} W (W' S_{xx} W)^{-1} u

        with the weights W and the covariance of the training rows: the linear reconstruction of
        least squared error.

        Parameters
        ----------
        views : list or dict of array-likes of shape (n_i, n_components_)
            Variates as `transform` returns them. None for a view that is not given; a dict may
            leave it out.

        Returns
        -------
        list or dict of arrays of shape (n_i, p_i)
            As given; None for None.

        Raises
        ------
        ValueError
            If no view is given, a name is unknown, or a number of columns is not `n_components_`.
        """
        check_is_fitted(self)
        given = self._named.not_none(views)
        return self._returned({a: self._decoded(u, a) for a, u in given.items()}, views)

    def score(self, views: Any, y: None = None, sample_weight: Any = None) -> float:
        """Score on held-out rows of all views; see `score_moments`.

        Parameters
        ----------
        views, y, sample_weight
            As in `fit`.

        Returns
        -------
        float
        """
        return super().score(views, y, sample_weight)

    def score_moments(self, moments: Moments) -> float:
        """The mean correlation of the variates of all pairs of views on held-out moments.

        Parameters
        ----------
        moments : Moments
            With a block for each of `view_names_`.

        Returns
        -------
        float
            The mean over the components and the pairs of views, with the test rows' own means
            and variances; NaN, with a warning, where a variate is constant.
        """
        return super().score_moments(moments)

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: no target."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        tags.target_tags.multi_output = False
        return tags
