"""The base of every estimator that is fitted on Moments of two views.

A subclass says how moments become a model (`_solve`) and how a model is scored on moments
(`score_moments`); fitting from rows, in parts, from folds, and arrays and frames in and out
are done here, once.
"""

from __future__ import annotations

import functools
import itertools
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import scipy.sparse
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import (
    device_of,
    namespace,
)
from cmstats.kernels import whitening
from cmstats.kernels.threads import blas_for
from cmstats.models.views import TwoViewEstimator, TwoViewOutput
from cmstats.moments.imputation import FilledRows, Filler
from cmstats.moments.moments import Moments, folds_by_number
from cmstats.rows.chunks import is_lazy
from cmstats.rows.views import is_stream

__all__ = ["MomentsEstimator", "TwoViewTransformer", "all_or_nothing"]

Method = TypeVar("Method", bound=Callable[..., Any])


def all_or_nothing(method: Method) -> Method:
    """A fitting method that leaves the estimator as it was where it raises."""

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(self.__dict__)
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    return wrapped  # type: ignore[return-value]


class MomentsEstimator(TwoViewEstimator):
    """Fit, partial fit and score of two paired views ("x" and "y") by way of their Moments.

    A subclass whose constructor has ``missing="error"`` takes rows with NaN where it is "em": in
    fitting and scoring as `Moments` do, elsewhere filled in by their conditional means.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {}
    _takes_dask = True
    _cv_parameters: ClassVar[tuple[str, ...]] = ()
    """The names of the parameters that may be "cv"."""
    moments_: Any

    # -------------------------------------------------------- what a subclass provides
    def _solve(self, moments: Moments) -> None:
        """Set the fitted attributes from the moments of all rows."""
        raise NotImplementedError

    def _resolve(self, folds: list[Moments]) -> dict[str, Any]:
        """Choose the parameters that are "cv" from fold moments."""
        raise NotImplementedError

    def score_moments(self, moments: Moments) -> float:
        """Score on the moments of held-out rows."""
        raise NotImplementedError

    def _ill_conditioned(self) -> bool:
        """Whether the scatter form was not good enough for the data just solved."""
        return False

    # ------------------------------------------------------------------------- fitting
    @all_or_nothing
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Fit to paired rows, in one pass over them.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features), or iterable of batches
            The first view: an array of any library, a frame, a memory-map, or anything with
            shape, dtype and slicing. Without `y` an iterable of batches (x, y), or dicts of
            these, as `Moments.from_batches` takes; row i of the stream is in fold i mod `cv`.
            An iterator is read once, so that ``solver="auto"`` has no second pass for
            ill-conditioned data: it warns.
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,)
            The second view; row i is the partner of row i of `X`. None for batches only.
        sample_weight : array of shape (n_samples,), optional
            Frequency weights: weight 2 is the row twice.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If values are not finite, lengths differ, there is only one row, or a parameter
            is out of range.
        """
        self._validate_params()
        if is_stream(X, y):
            self._fit_stream(X, sample_weight)
            return self._warned()
        X, y = self._check_views(X, y, reset=True)
        if X.shape[0] < 2:
            raise ValueError(
                f"n_samples={X.shape[0]}: one sample has no variance, at least 2 are needed"
            )
        form = self._first_form(X.shape[0], X.shape[1] + (1 if y.ndim == 1 else y.shape[1]))
        self._fit_rows(form, X, y, sample_weight)
        auto = getattr(self, "solver", "") == "auto" and self._missing == "error"
        if form == "scatter" and auto and self._ill_conditioned():
            self._fit_rows("root", X, y, sample_weight)
        return self._warned()

    def _fit_stream(self, source: Iterable[Any], sample_weight: Any) -> None:
        """Fit to batches; in the root form too where these can be read twice and it is needed."""
        if sample_weight is not None:
            raise ValueError(
                "sample_weight goes with arrays, not with batches: merge the Moments of weighted "
                "batches and call fit_moments"
            )
        form = self._first_form(np.inf, 0)  # type: ignore[arg-type]
        wide = self._fit_batches(source, form)
        auto = getattr(self, "solver", "") == "auto" and self._missing == "error"
        if form == "root" or not auto or not (wide or self._ill_conditioned()):
            return
        if iter(source) is not source:
            self._fit_batches(source, "root")
        elif self._ill_conditioned():
            self._degenerate.append(
                "the columns are ill-conditioned, and an iterator cannot be read again for the "
                "more precise form: set solver='svd', or pass batches that can be (a list, an "
                "object whose __iter__ begins anew)"
            )

    def _fit_batches(self, source: Iterable[Any], form: Any) -> bool:
        """Fit to one pass over batches; whether they have more columns than rows."""
        names = self._open_parameters()
        if names and not isinstance(self.cv, (int, np.integer)):
            raise ValueError(
                f"{names[0]}='cv': rows of a stream are dealt to folds by number, so cv must be an "
                "int"
            )
        blocks, how = self._batches(source), {"form": form, "missing": self._missing}
        if names:
            self._fit_total(Moments.folds_from_batches(blocks, cv=int(self.cv), **how))
        else:
            self._fit_total(Moments.from_batches(blocks, **how))
        total = self._total()
        return sum(total.widths) > total.rows

    def _batches(self, source: Iterable[Any]) -> Iterator[dict[str, Any]]:
        """The batches as what `Moments.from_batches` takes."""
        for x, y in self._pairs(source):
            data = self._data("scatter", x, y, None)
            yield {"x": data["x"], "y": data["y"]}

    def _pairs(self, source: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """Both views of each batch, checked against the first as in `fit`."""
        first = True
        for number, batch in enumerate(source):
            pair = batch
            if isinstance(batch, Mapping) and set(batch) == {"x", "y"}:
                pair = (batch["x"], batch["y"])
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise ValueError(
                    f"batch {number} is no pair of views: yield tuples (x, y) or dicts of 'x' and "
                    "'y'"
                )
            if any(getattr(a, "shape", (1,))[:1] != (0,) for a in pair):  # none adds nothing
                with _of_batch(number):
                    checked = self._check_views(*pair, reset=first)
                first = False
                yield checked

    def _validate_params(self) -> None:
        super()._validate_params()
        if self._missing == "em" and getattr(self, "solver", "auto") == "svd":
            raise ValueError(
                "missing='em' works on scatter matrices, solver='svd' on roots of them: set "
                "solver='auto' or solver='moments'"
            )

    def _first_form(self, n: int, d: int) -> Any:
        if self._missing == "em":
            return "scatter"
        solver = getattr(self, "solver", "auto")
        return "root" if solver == "svd" or (solver == "auto" and d > n) else "scatter"

    def _fit_rows(self, form: Any, X: Any, y: Any, sample_weight: Any) -> None:
        data = self._data(form, X, y, sample_weight)
        if self._open_parameters():
            self._fit_total(Moments.folds(cv=self.cv, **data))
        else:
            self._fit_total(Moments.from_data(**data))

    def _data(self, form: Any, X: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
        """What `Moments.from_data` is handed."""
        return {
            "form": form,
            "sample_weight": sample_weight,
            "missing": self._missing,
            "x": X,
            "y": y,
        }

    @all_or_nothing
    def fit_moments(self, moments: Moments | Sequence[Moments]) -> Self:
        """Fit to the moments of blocks "x" and "y".

        Parameters
        ----------
        moments : Moments or list of Moments
            The list of fold moments where a parameter is "cv" (`Moments.folds`); a list is
            merged otherwise.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a block is missing, or a parameter is "cv" and `moments` is a single one,
            which cannot be split.
        """
        self._validate_params()
        single = isinstance(moments, Moments)
        parts = [moments] if isinstance(moments, Moments) else list(moments)
        if not parts or not all(isinstance(m, Moments) for m in parts):
            raise TypeError("fit_moments takes Moments, or a list of the Moments of folds")
        names = self._open_parameters()
        if names and len(parts) < 2:
            raise ValueError(
                f"{names[0]}='cv' needs the moments of at least two folds, and "
                f"{'a single Moments' if single else 'this list of one'} cannot be split: pass "
                "Moments.folds(cv=5, x=X, y=y)"
            )
        self._know_blocks(parts)
        for name in ("feature_names_in_", "y_feature_names_in_"):
            self.__dict__.pop(name, None)
        self._fit_total(parts if names else functools.reduce(operator.add, parts))
        return self._warned()

    def _know_blocks(self, parts: list[Moments]) -> None:
        """Take the widths of the views from moments, which must have both."""
        for m in parts:
            for view in ("x", "y"):
                m.columns(view)
        self.n_features_in_ = parts[0].width("x")
        self._y_width, self._y_ndim = parts[0].width("y"), 2

    @all_or_nothing
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Add paired rows to those fitted so far.

        The result is that of `fit` on all rows together, however they were parted: row
        number i overall belongs to fold i mod `cv` where a parameter is "cv". Each call
        solves anew, O(d^3): for very many small batches build `Moments.from_batches` and
        call `fit_moments` once.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        self
        """
        self._validate_params()
        seen = getattr(self, "moments_", None)
        X, y = self._check_views(X, y, reset=seen is None)
        before = [seen] if isinstance(seen, Moments) else list(seen or [])
        held = [m for m in before if m is not None]
        form = held[0].form if held else self._first_form(np.inf, 0)  # type: ignore[arg-type]
        data = self._data(form, X, y, sample_weight)
        open_parameters = self._open_parameters()
        new: list[Moments | None]
        if open_parameters:
            if not isinstance(self.cv, (int, np.integer)):
                raise ValueError("partial_fit deals rows to folds by number: cv must be an int")
            start = sum(m.rows_seen for m in held)
            views = {"x": data.pop("x"), "y": data.pop("y")}
            new = folds_by_number(views, start, int(self.cv), **data)
            if len(before) not in (0, len(new)):
                raise ValueError(
                    f"the rows before were not dealt to {len(new)} folds, so "
                    f"{open_parameters[0]}='cv' cannot use them: start anew with these parameters"
                )
        else:
            new = [Moments.from_data(**data)]
            before = [functools.reduce(operator.add, held)] if held else []
        merged = [
            b if a is None else (a if b is None else a + b)
            for a, b in itertools.zip_longest(before, new)
        ]
        # Until there are rows enough for a model, they are only counted.
        self.moments_ = merged if open_parameters else merged[0]
        if self._enough(merged):
            self._fit_total(self.moments_)
            return self._warned()
        return self

    def _enough(self, parts: list[Moments | None]) -> bool:
        """Whether these moments, or those of all folds but one, make a model."""
        counts = [0.0 if m is None else m.rows_together for m in parts]
        held_out = max(counts) if len(counts) > 1 else 0.0
        return min(counts) > 0 and sum(counts) - held_out >= self._rows_needed()

    def _rows_needed(self) -> int:
        """The least number of rows that make a model."""
        return 2

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a model."""
        return hasattr(self, "n_samples_")

    def _open_parameters(self) -> list[str]:
        """The names of the parameters that are to be chosen by cross-validation."""
        found = []
        for name in self._cv_parameters:
            value = getattr(self, name)
            parts = value if isinstance(value, (tuple, list)) else (value,)
            if any(isinstance(v, str) and v == "cv" for v in parts):
                found.append(name)
        return found

    def _fit_total(self, moments: Moments | list[Moments]) -> None:
        self._degenerate: list[str] = []
        self._fillers: dict[str, Filler] = {}
        if isinstance(moments, Moments):
            self._chosen: dict[str, Any] = {}
            total = moments
        else:
            self._chosen = self._resolve(moments)
            total = functools.reduce(operator.add, moments)
        if total.rows < 2 or total.n < 2:
            raise ValueError(
                f"n_samples={min(total.rows, int(total.n))} sample has no variance: at least 2 "
                "rows are needed"
            )
        self.n_samples_ = total.n
        with blas_for(sum(total.widths)):
            self._solve(total)
        self.moments_ = moments
        # Merging is cheap, but not to estimate once more what is missing.
        self._estimated_total = total if total.incomplete else None

    def _total(self) -> Moments:
        """The moments of all rows it was fitted to."""
        seen = self.moments_
        if isinstance(seen, Moments):
            return seen
        return self._estimated_total or functools.reduce(operator.add, seen)

    def _warned(self) -> Self:
        """Say once, after the last solution, what about the data was degenerate."""
        if self._degenerate:
            warnings.warn("; ".join(self._degenerate), UserWarning, stacklevel=3)
        return self

    # ------------------------------------------------------------------------- scoring
    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Score on held-out rows; equals ``score_moments(Moments.from_data(x=X, y=y))``.

        Parameters
        ----------
        X, y, sample_weight
            As in `fit`.

        Returns
        -------
        float
            See `score_moments`.
        """
        check_is_fitted(self)
        X, y = self._check_views(X, y, reset=False)
        seen = self.moments_ if isinstance(self.moments_, Moments) else self.moments_[0]
        # The form that was good enough to fit is the form to score in.
        return self.score_moments(Moments.from_data(**self._data(seen.form, X, y, sample_weight)))

    @staticmethod
    def _views(moments: Moments) -> Moments:
        """The two views alone, where other blocks would tell of what they miss."""
        if not moments.incomplete or moments.names == ("x", "y"):
            return moments
        return moments.select("x", "y")

    @staticmethod
    def _held_out(moments: Moments) -> Moments:
        """What a score is computed on: the complete rows, where there are at least two."""
        complete = moments.complete_rows()
        if complete is None or min(complete.rows, complete.n) < 2:
            return moments
        return complete

    # ---------------------------------------------------------------- missing entries
    def _filled(self, rows: Any, view: str) -> Any:
        """Rows of a view with NaN replaced by its conditional mean given the row's entries.

        The conditional mean is that of the fitted moments with the model's own shrinkage, so
        that what the model makes of the rows linearly is the conditional mean of that.
        """
        if view not in self._fillers:
            self._fillers[view] = self._filler(view)
        fill = self._fillers[view]
        if is_lazy(rows) or (scipy.sparse.issparse(rows) and np.isnan(np.sum(rows.data))):
            return FilledRows(rows, fill)
        return rows if scipy.sparse.issparse(rows) else fill(rows)

    def _filler(self, view: str) -> Filler:
        m = self._total()
        s, scale = 0.0, bool(getattr(self, "scale", False))
        if isinstance(getattr(self, "shrinkage_", None), tuple):
            m = self._views(m)
            names = m.names if len(m.names) == len(self.shrinkage_) else ("x", "y")
            s = float(self.shrinkage_[names.index(view)])
            m = m.before_shrinkage(self.shrinkage_, scale=scale)
        C, variance = m.cov(view), m.variance(view)
        xp = namespace(C)
        varying = m.width(view) - int(xp.count_nonzero(m.constant(view)))
        if s == 0 and whitening.factor(C).rank < varying:
            s = m.ledoit_wolf(view)  # or the regressions within the view are not unique
        target = variance if scale else xp.mean(variance)
        eye = xp.eye(m.width(view), dtype=xp.float64, device=device_of(C))
        return Filler(m.mean(view), (1 - s) * C + s * target * eye)


class TwoViewTransformer(TwoViewOutput, MomentsEstimator):
    """A model of moments that transforms both views."""


@contextmanager
def _of_batch(number: int) -> Iterator[None]:
    """Say in which batch what does not fit is."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"batch {number}: {error}") from None
