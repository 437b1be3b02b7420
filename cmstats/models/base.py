"""The base of every model: named blocks of rows in, a fitted model out.

`RowsModel` reads two paired views: their checks, missing entries, containers and names.
`MomentsModel` fits to the moments of the blocks: from rows, from batches, in parts, from the
moments of folds, with whatever the model declares tunable chosen by cross-validation. A model
says what its blocks are (`_blocks`), how moments become a model (`_solve`) and how a model is
scored on moments (`_score`).
"""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Self

import numpy as np
from sklearn.utils import Tags
from sklearn.utils._param_validation import validate_parameter_constraints
from sklearn.utils.validation import check_is_fitted, validate_data

from cmstats.arrays import detached, is_dask, namespace, warn
from cmstats.kernels.threads import blas_for
from cmstats.models.batches import Batches
from cmstats.models.dask import refuse
from cmstats.models.degenerate import vanishing_columns
from cmstats.models.fitting import CopyFitted
from cmstats.models.imputing import Imputing
from cmstats.models.tuning import Tuning
from cmstats.moments.collect import Pass
from cmstats.moments.imputation import Filler
from cmstats.moments.moments import Moments, folds_of_rows
from cmstats.moments.shrinkage import check_aligned, shrinkage_tuple
from cmstats.rows.chunks import check_lengths, is_lazy
from cmstats.rows.dependence import dependence_notes, watched
from cmstats.rows.matrix import check_matrix, check_rows_of, check_source, is_vector
from cmstats.rows.names import column_names, naming_columns, stand_in
from cmstats.rows.pairs import check_row_labels, warn_of_ids
from cmstats.rows.reservoir import sample_folds
from cmstats.rows.source import row_count, take_in_memory, width_of
from cmstats.rows.splits import Folds, count_rows
from cmstats.rows.views import names_of_views

__all__ = ["MomentsModel", "RowsModel", "check_moments", "length_of"]


class RowsModel(CopyFitted):
    """An estimator of paired rows: two views "x" and "y" unless a subclass says otherwise."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {}
    _takes_dask: ClassVar[bool] = False
    """Whether it is fitted to, and scored on, Dask arrays."""
    _targets: ClassVar[str | None] = None
    """The block of which the equation needs no products among its columns."""
    _private = frozenset({"_y_width", "_y_ndim", "_solution"})

    @property
    def _missing(self) -> Any:
        return getattr(self, "missing", "error")

    def _blocks(self, X: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        """The blocks of rows by name; widths and names are remembered or checked, values later.

        Parameters
        ----------
        X, y
            What `fit` and `score` are given.
        reset : bool
            Whether to remember widths and names, in a fit, or to check them.
        """
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is None: it "
                "is the second view"
            )
        if not self._takes_dask and (is_dask(X) or is_dask(y)):
            refuse(self, "fit")
        check_row_labels({"X": X, "y": y})
        X = self._check_x(X, reset=reset, ensure_finite=False)
        y = self._check_y(y, reset=reset, ensure_finite=False)
        check_lengths({"X": X, "y": y})
        if reset:
            names = self._column_names()
            warn_of_ids({"X": X, "y": y}, {**names, "X": names.get("x")})
        return {"x": X, "y": y}

    def _labelled_blocks(self, X: Any, y: Any, sample_weight: Any) -> dict[str, Any]:
        """The blocks of a first fit, with weights that are paired by their labels."""
        check_row_labels({"X": X, "sample_weight": sample_weight})
        return self._blocks(X, y, reset=True)

    def _column_names(self) -> dict[str, Any]:
        """The names of the columns of each block that fit saw in frames."""
        known = {"x": "feature_names_in_", "y": "y_feature_names_in_"}
        found = {view: getattr(self, name) for view, name in known.items() if hasattr(self, name)}
        return names_of_views(found, getattr(self, "view_columns_", {}))

    def _naming(self) -> AbstractContextManager[None]:
        """Name the columns in errors about values that are not finite."""
        names = self._column_names()
        return naming_columns({**names, "X": names.get("x")})

    def _check_x(self, X: Any, *, reset: bool = False, ensure_finite: bool = True) -> Any:
        checked = check_rows_of(X, self._read(detached(X) if reset else X, "X", ensure_finite))
        names = column_names(X, "X")
        fitted = vars(self)
        nameless = names is None and "feature_names_in_" not in fitted
        # A quarter of the time of a call on few rows, with nothing to find in these.
        if reset or not nameless or width_of(checked) != fitted.get("n_features_in_"):
            like = checked if names is None and hasattr(X, "columns") else X
            validate_data(self, stand_in(like, names), reset=reset, skip_check_array=True)
        fill = ensure_finite and not reset and self._missing == "em"
        return self._filled(checked, "x") if fill else checked

    def _check_y(self, y: Any, *, reset: bool = False, ensure_finite: bool = True) -> Any:
        checked = self._read(detached(y) if reset else y, "y", ensure_finite)
        width = 1 if checked.ndim == 1 else int(checked.shape[1])
        names = column_names(y, "y")
        if reset:
            self._y_width, self._y_ndim = width, 1 if is_vector(y, checked) else 2
            if names is not None:
                self.y_feature_names_in_ = names
            return checked
        if width != self._y_width:
            raise ValueError(
                f"y has {width} features, but {type(self).__name__} is expecting {self._y_width} "
                "features in y"
            )
        known = getattr(self, "y_feature_names_in_", None)
        if known is not None and names is not None and list(known) != list(names):
            raise ValueError(
                "The feature names of y should match those that were passed during fit: got "
                f"{', '.join(map(str, names[:5]))} where fit saw {', '.join(map(str, known[:5]))}"
            )
        fill = ensure_finite and self._missing == "em"
        return self._filled(checked, "y") if fill else checked

    def _read(self, a: Any, name: str, ensure_finite: bool) -> Any:
        if is_lazy(a):
            return check_source(a, name)
        if self._missing == "em" and ensure_finite:
            return check_matrix(a, name, ensure_finite="allow-nan")
        hint = ", or set missing='em'" if hasattr(self, "missing") else ""
        return check_matrix(a, name, ensure_finite=ensure_finite, hint=hint)

    def _given(self, X: Any, y: Any = None) -> dict[str, tuple[Any, Any]]:
        """By view the checked rows that are given, beside what was given."""
        if X is None and y is None:
            raise ValueError("give X, y or both")
        if X is not None and y is not None and row_count(X) == row_count(y):
            check_row_labels({"X": X, "y": y})
        found = {} if X is None else {"x": (self._check_x(X), X)}
        return found if y is None else {**found, "y": (self._check_y(y), y)}

    def _returned(self, found: dict[str, Any], *views: Any) -> Any:
        """Results by view as the caller gave the views: one, or a pair."""
        return next(iter(found.values())) if len(found) == 1 else tuple(found.values())

    def _training_rows(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Both views of a fit that needs them in memory, with finite values."""
        views = self._blocks(X, y, reset=True).values()
        X, y = (take_in_memory(a, slice(None)) if is_lazy(a) else a for a in views)
        with self._naming():
            return self._read(X, "X", True), self._read(y, "y", True)

    def _filled(self, rows: Any, view: str) -> Any:
        """Rows with NaN filled in, where the estimator takes such rows."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Tags:
        """scikit-learn's tags: two required views, sparse input."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self._missing == "em"
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        # Arrays of other libraries are taken, but y and weights are not moved to X's device, as
        # that tag promises: mixing libraries or devices raises one sentence instead.
        tags.array_api_support = False
        return tags


class MomentsModel(Tuning, Batches, Imputing, RowsModel):
    """A model whose fit, partial fit and score go by way of the moments of its blocks.

    A subclass whose constructor has ``missing="error"`` takes rows with NaN where it is "em": in
    fitting and scoring as `Moments` do, elsewhere filled in by their conditional means.
    """

    _takes_dask = True
    collects: ClassVar[tuple[str, ...]] = ("missing", "solver")
    """The parameters that change the pass over the rows itself."""
    _private = RowsModel._private | {
        *("_between", "_merged", "_fillers", "_groups_seen", "_queries", "_said"),
    }
    moments_: Any
    _between: Sequence[Any] = ()
    """The moments of rows in gaps between folds, which are in the fit and in no fold."""
    _solution: Any

    # What a model provides.
    def _solve(self, *args: Any, **kwargs: Any) -> Any:
        """The model of some moments, ``_solve(m, **chosen)``, as an object of published fields.

        Pure: it reads parameters and moments, and writes nothing. Fields that end in an
        underscore become attributes of the estimator; `notes`, sentences about degenerate data,
        become one warning.

        Parameters
        ----------
        m : Shrunk, or Moments for a model without shrinkage
        **chosen
            The values of other parameters that were "cv".
        """
        raise NotImplementedError

    def _score(self, moments: Moments, model: Any) -> float:
        """The score of what `_solve` returned on held-out moments."""
        raise NotImplementedError

    # What a model may say beside that.
    def _blocks(self, X: Any, y: Any = None, *, reset: bool) -> dict[str, Any]:
        blocks = super()._blocks(X, y, reset=reset)
        if reset and self._target == "aligned":
            check_aligned(self._target, {name: width_of(a) for name, a in blocks.items()})
        return blocks

    def _rows(
        self, blocks: dict[str, Any], sample_weight: Any, *, partial: bool = False
    ) -> tuple[dict[str, Any], Any]:
        """The rows that the moments are taken of, and their weights (kernel models map them)."""
        return blocks, sample_weight

    # Fitting.
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, groups: Any = None) -> Self:
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
        groups : array of shape (n_samples,), optional
            Labels of rows that depend on each other (captions of one image, scans of one
            subject): where a parameter is "cv" they are in one fold (`Moments.folds`). For
            batches the labels of all their rows.

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
        check_row_labels({"X": X, "sample_weight": sample_weight, "groups": groups})
        new = self._unfitted()
        if self._is_stream(X, y):
            notes = new._fit_stream(X, sample_weight, groups)
        else:
            blocks = new._blocks(X, y, reset=True)
            with new._naming():
                notes = new._fit_blocks(blocks, sample_weight, groups)
        return self._become(new)._warned(notes)

    def _fit_blocks(self, blocks: dict[str, Any], sample_weight: Any, groups: Any) -> list[str]:
        """Fit to checked rows, in the root form too where the scatter is not good enough."""
        n = length_of(blocks)
        folds = self._folds_of(n, blocks.get("y"), groups, sample_weight)
        given, weights = blocks if folds is None else watched(blocks), sample_weight
        blocks, sample_weight = self._rows(given, sample_weight)
        form = self._form_of(count_rows(n, weights), blocks)

        def collected(form: Any) -> list[Any]:
            if folds is None:
                found: list[Any] = self._collect(blocks, form, sample_weight)
                return found
            found = self._collect(blocks, form, sample_weight, folds.with_gaps(n, sample_weight))
            self._between = [m for m in found[folds.count :] if m is not None]
            if self._ranks_rows():
                self._queries = sample_folds(blocks, folds, sample_weight)
            return found[: folds.count]

        notes = self._learn_resolved(collected, form)
        return notes if folds is None else dependence_notes(given, folds, weights) + notes

    def _learn_resolved(self, collect: Callable[[Any], Any], form: Any) -> list[str]:
        """Fit to rows collected in a form, and in finer ones until they resolve the columns."""
        notes = self._learn(collect(form))
        for finer in self._finer_forms() if form == "scatter" else ():
            if not self._ill_conditioned():
                break
            if finer == "root" or any(m.single for m in self._kept() if m is not None):
                notes = self._learn(collect(finer))
        return notes + self._unresolved()

    def _collect(
        self,
        blocks: dict[str, Any],
        form: Any,
        sample_weight: Any = None,
        folds: Folds | None = None,
    ) -> Any:
        """The moments of each fold of the rows (None without a row), of all without `folds`."""
        how = Pass(form, self._missing, diagonal=self._diagonal(blocks))
        with self._naming():
            found = folds_of_rows(blocks, folds, how, sample_weight)
        return [m if m is None else self._named_moments(m) for m in found]

    def _diagonal(self, blocks: Mapping[str, Any] | None = None) -> str | None:
        """The block of which the equation needs the variances alone; of batches without blocks."""
        return None if self._missing == "em" else self._targets

    def _named_moments(self, moments: Moments) -> Moments:
        """Moments of rows with the names of their columns."""
        return moments.name_columns(self._column_names())

    def _fold_moments(
        self, blocks: dict[str, Any], form: Any, sample_weight: Any, folds: Folds | None
    ) -> list[Moments]:
        """The Moments of folds for a search, or of held-out rows for a score."""
        found: list[Moments] = self._collect(blocks, form, sample_weight, folds)
        return found

    def _learn(self, parts: Any) -> list[str]:
        """Solve for the moments of all folds together, with what is open chosen on the folds.

        Returns the sentences about what was degenerate.
        """
        open_parameters = self._open_parameters()
        total: Moments = functools.reduce(operator.add, [*parts, *self._between])
        _check_rows_of(total)
        chosen: dict[str, Any] = {}
        scored: dict[str, Any] = {}
        if open_parameters:
            chosen, scored = self._choose(list(parts))
        notes = dict.fromkeys(scored.pop("notes", []))
        with blas_for(sum(total.widths)):
            solution = self._solved(total, chosen)
        self._publish(solution)
        self.__dict__.update(scored)
        self.n_samples_ = total.n
        self._keep(list(parts) if open_parameters else [total])
        self._between = self._between if open_parameters else ()
        # Merging is cheap, but not to estimate once more what is missing.
        self._merged = total if total.incomplete else None
        return [*notes, *vanishing_columns(total), *solution.notes]

    def _keep(self, parts: list[Any]) -> None:
        """Remember the moments of the rows so far: of each fold, or of all."""
        self.moments_ = parts if self._open_parameters() else parts[0]

    def _kept(self) -> list[Any]:
        """The moments of the rows so far, as a list."""
        seen = getattr(self, "moments_", None)
        return [seen] if isinstance(seen, Moments) else list(seen or [])

    def _publish(self, solution: Any) -> None:
        """Copy the fields of a solution that end in an underscore, but None, into attributes."""
        self._fillers: dict[str, Filler] = {}
        self._solution = solution
        self.__dict__.pop("calibration_", None)  # of the solution before (`predict_region`)
        fields = {k: v for k, v in vars(solution).items() if k.endswith("_") and v is not None}
        self.__dict__.update(fields)

    def _warned(self, notes: Sequence[str]) -> Self:
        """Say once, after the last solution, what about the data was degenerate."""
        if notes:
            warn("; ".join(notes))
        return self

    def _validate_params(self) -> None:
        # Defaults are valid: with few rows to fit, to check them takes a tenth of the time.
        cls: Any = type(self)
        given = {name: (getattr(self, name), default) for name, default in _defaults(cls).items()}
        changed = {name: value for name, (value, default) in given.items() if value is not default}
        constraints = self._parameter_constraints
        validate_parameter_constraints(constraints, changed, caller_name=cls.__name__)
        if hasattr(self, "shrinkage"):
            value = self.shrinkage
            value = tuple(value.values()) if isinstance(value, Mapping) else value
            shrinkage_tuple(value, len(value) if isinstance(value, (tuple, list)) else 2)
        self._check_scoring()
        if self._missing == "em" and getattr(self, "solver", "auto") == "svd":
            raise ValueError(
                "missing='em' works on scatter matrices, solver='svd' on roots of them: set "
                "solver='auto' or solver='moments'"
            )

    # The two representations of moments.
    def _form_of(self, n: float, blocks: Mapping[str, Any]) -> Any:
        """The form to collect n checked rows in; targets do not make them wide."""
        targets = self._diagonal(blocks)
        return self._first_form(n, sum(width_of(a) for k, a in blocks.items() if k != targets))

    def _first_form(self, n: float, d: int) -> Any:
        """The form to collect n rows of d columns in."""
        if self._missing == "em":
            return "scatter"
        solver = getattr(self, "solver", "auto")
        return "root" if solver == "svd" or (solver == "auto" and d > n) else "scatter"

    def _finer_forms(self) -> tuple[str, ...]:
        """The forms in which ill-conditioned rows of a scatter are to be collected anew."""
        auto = getattr(self, "solver", "auto") == "auto" and self._missing == "error"
        return ("double", "root") if auto else ("double",)

    def _ill_conditioned(self) -> bool:
        """Whether the moments do not resolve the columns of the data just solved."""
        condition = getattr(self, "condition_", 0.0)
        return not all(m.resolves(condition) for m in self._kept() if m is not None)

    def _unresolved(self) -> list[str]:
        """The sentence about moments that do not resolve the columns."""
        total = [m for m in self._kept() if m is not None]
        if not total or sum(m.rows for m in total) <= total[0].multiplied:
            return []  # too few rows for any form
        if not self._ill_conditioned():
            return []
        what = "single" if total[0].single else "double"
        finer = "collect them with form='root'"
        if hasattr(self, "solver"):
            finer = f"set solver='svd' (of moments: {finer})"
        return [
            f"the columns are ill-conditioned (condition number {self.condition_:.1g}), and second "
            f"moments in the scatter form in {what} precision do not resolve them: {finer}, or "
            "shrink"
        ]

    # Moments.
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
        new = self._for_moments()
        notes = new._fit_parts(list(moments) if isinstance(moments, Iterable) else [moments])
        return self._become(new)._warned(notes)

    def _for_moments(self) -> Self:
        """The copy that a fit to moments writes on."""
        return self._unfitted()

    def _fit_parts(self, parts: list[Any]) -> list[str]:
        """Fit to the moments of folds."""
        if not parts or not all(isinstance(m, Moments) for m in parts):
            raise TypeError("fit_moments takes Moments, or a list of the Moments of folds")
        names = self._open_parameters()
        if names and len(parts) < 2:
            raise ValueError(
                f"{self._as_chosen(names[0])} needs the moments of at least two folds, and a "
                "single Moments cannot be split: pass Moments.folds(cv=5, x=X, y=y)"
            )
        self._check_rows_for_scoring()
        self._know_blocks(parts)
        notes = self._learn(parts if names else [functools.reduce(operator.add, parts)])
        return notes + self._unresolved()

    def _know_blocks(self, parts: list[Moments]) -> None:
        """Take the widths of the views from moments, which must have both."""
        for m in parts:
            for view in ("x", "y"):
                m.columns(view)
        self.n_features_in_ = parts[0].width("x")
        self._y_width, self._y_ndim = parts[0].width("y"), 2
        self._know_names(parts[0])

    def _know_names(self, moments: Moments) -> None:
        """Take the names of the columns from moments that have some."""
        for view, attribute in (("x", "feature_names_in_"), ("y", "y_feature_names_in_")):
            if (names := moments.column_names.get(view)) is not None:
                setattr(self, attribute, np.array(names, dtype=object))

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a model."""
        return hasattr(self, "n_samples_")

    def _total(self) -> Moments:
        """The moments of all rows it was fitted to."""
        parts = [*self._kept(), *self._between]
        return (
            parts[0] if len(parts) == 1 else self._merged or functools.reduce(operator.add, parts)
        )

    # Scoring.
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
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
        return self.score_moments(self._score_moments_of(X, y, sample_weight))

    def _score_moments_of(self, X: Any, y: Any, sample_weight: Any) -> Moments:
        """The moments of held-out rows, in the form that was good enough to fit."""
        check_row_labels({"X": X, "sample_weight": sample_weight})
        blocks, weights = self._rows(self._blocks(X, y, reset=False), sample_weight)
        return self._fold_moments(blocks, self._kept()[0].form, weights, None)[0]

    def score_moments(self, moments: Moments) -> float:
        """Score on the moments of held-out rows."""
        return self._score(self._held_out(self._fitting(moments)), self._solution)

    def _fitting(self, moments: Moments) -> Moments:
        """The moments, checked against those of the fit by block, width and place."""
        check_is_fitted(self)
        namespace(self._kept()[0].like, check_moments(moments).like)
        for name, width in self._block_widths().items():
            if moments.width(name) != width:
                raise ValueError(
                    f"the moments of {name} are of {moments.width(name)} features, but "
                    f"{type(self).__name__} is expecting {width}"
                )
        return moments

    def _block_widths(self) -> dict[str, int]:
        """The width of each block of the moments that it was fitted to."""
        m = self._kept()[0]
        return dict(zip(m.names, m.widths, strict=True))


@functools.cache
def _defaults(model: type) -> dict[str, Any]:
    """The parameters of the constructor of a class with their defaults."""
    return {name: p.default for name, p in inspect.signature(model).parameters.items()}


def length_of(blocks: Mapping[str, Any]) -> int:
    """The number of rows to be fitted to."""
    n = int(next(iter(blocks.values())).shape[0])
    if n < 2:
        raise ValueError(f"n_samples={n}: one sample has no variance, at least 2 are needed")
    return n


def check_moments(moments: Any) -> Moments:
    """Raise if a score on moments is handed something else."""
    if not isinstance(moments, Moments):
        raise TypeError(
            f"expected the Moments of held-out rows, got {type(moments).__name__}: take "
            "Moments.from_data(x=X, y=y), or call score with the rows"
        )
    return moments


def _check_rows_of(total: Moments) -> None:
    if max(total.rows, total.n) < 2:  # one row five times is constant, like five equal rows
        raise ValueError(
            f"n_samples={total.rows} sample has no variance: at least 2 rows are needed"
        )
