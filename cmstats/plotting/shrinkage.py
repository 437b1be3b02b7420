"""The cross-validated score over the shrinkage."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from cmstats.plotting.display import Display, Floats, fold_errors
from cmstats.plotting.style import COLOURS, axes_of, legend_above, look

__all__ = ["ShrinkagePathDisplay"]


class ShrinkagePathDisplay(Display):
    """The cross-validated score over the shrinkage, with standard errors over the folds.

    Parameters
    ----------
    shrinkages : array of shape (m, 2)
        The pairs (x, y) that were tried; one column per view for models of more views.
    scores : array of shape (m, n_folds)
        Their held-out scores in each fold.
    score_name : str, default="correlation"
        The name of the score, for the axis.

    Attributes
    ----------
    best : tuple of float
        The pair with the best mean score.
    ax_, figure_ : matplotlib axes and figure
        Those of the last drawing, after `plot`.

    Examples
    --------
    >>> import matplotlib; matplotlib.use("Agg")
    >>> from cmstats import CCA, load_linnerud
    >>> from cmstats.plotting import ShrinkagePathDisplay
    >>> men = load_linnerud()
    >>> cca = CCA(1, shrinkage="cv").fit(men.X, men.y)
    >>> display = ShrinkagePathDisplay.from_estimator(cca)
    >>> display.best == cca.shrinkage_
    True
    """

    def __init__(self, shrinkages: Any, scores: Any, *, score_name: str = "correlation") -> None:
        self.shrinkages = np.asarray(shrinkages, dtype=np.float64)
        self.scores = np.asarray(scores, dtype=np.float64)
        self.score_name = score_name
        wide = self.shrinkages.ndim == 2 and self.shrinkages.shape[1] >= 2
        if not wide or self.scores.ndim != 2 or len(self.shrinkages) != len(self.scores):
            raise ValueError(
                "shrinkages must be pairs and scores one row of folds for each, got shapes "
                f"{self.shrinkages.shape} and {self.scores.shape}"
            )
        if not np.isfinite(self.scores).all(axis=1).any():
            raise ValueError("no shrinkage has a score in every fold: there is nothing to draw")
        mean = np.where(np.isfinite(self.scores).all(axis=1), self.scores.mean(axis=1), -np.inf)
        self.best = tuple(float(s) for s in self.shrinkages[int(np.argmax(mean))])

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> Self:
        """Draw the path of a fitted search.

        Parameters
        ----------
        estimator : fitted MomentsSearchCV or GridSearchCV over ``shrinkage``, or a model fitted \
with ``shrinkage="cv"``
            Or a pipeline around one. Where the grid has other parameters too, the best of these
            at each shrinkage is drawn.
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.

        Returns
        -------
        ShrinkagePathDisplay

        Raises
        ------
        ValueError
            If the estimator tried no numeric shrinkage.
        """
        model, tried, scores = _searched(estimator)
        views = max(len(s) if isinstance(s, (tuple, list)) else 2 for s in tried)
        pairs = [tuple(s) if isinstance(s, (tuple, list)) else (s,) * views for s in tried]
        # "auto" has no place on a numeric axis.
        numeric = [not any(s is None or isinstance(s, str) for s in pair) for pair in pairs]
        if not any(numeric):
            raise ValueError("the search tried no numbers for the shrinkage")
        kept = [pair for pair, number in zip(pairs, numeric, strict=True) if number]
        return cls(kept, np.asarray(scores)[numeric], score_name=_score_name(model)).plot(ax)

    def plot(self, ax: Any = None) -> Self:
        """Draw the display.

        Where pairs were tried, there is one line per view whose shrinkage varies: the best
        score at each of its values over the shrinkages of the other view.

        Parameters
        ----------
        ax : matplotlib axes, optional
            Axes to draw in; by default those of a new figure.

        Returns
        -------
        self
        """
        ax = axes_of(ax, (6.4, 4.0), grid="y")
        for at, (label, side) in enumerate(self._lines()):
            s, mean, error = self._profile(side)
            ax.errorbar(
                s, mean, error, markersize=5, capsize=3, linewidth=1.4, label=label,
                **look(at, filled=at == 0),
            )  # fmt: skip
            ax.axvline(self.best[side], color=COLOURS[at], linewidth=1, linestyle=":", zorder=0.9)
        self._scale(ax)
        ax.set_xlabel("shrinkage (0: none, 1: the scatter is a multiple of the identity)")
        ax.set_ylabel(f"mean held-out {self.score_name}\n± standard error over the folds")
        one = len(set(self.best)) == 1
        best = "chosen: " + " and ".join(f"{s:g}" for s in (self.best[:1] if one else self.best))
        legend_above(ax, title=best)
        return self._drawn_in(ax)

    def _lines(self) -> list[tuple[str, int]]:
        """The lines to draw: label, and the view whose shrinkage is on the axis."""
        S = self.shrinkages
        if bool(np.all(S[:, :1] == S)):
            return [("both views" if S.shape[1] == 2 else "all views", 0)]
        names = ("x", "y") if S.shape[1] == 2 else tuple(f"view {i + 1}" for i in range(S.shape[1]))
        varying = [i for i in range(S.shape[1]) if len(np.unique(S[:, i])) > 1][: len(COLOURS)]
        if S.shape[1] > 2:
            return [(f"shrinkage of {names[i]}, best of the others", i) for i in varying]
        lines = []
        for i in varying:
            other = np.unique(S[:, 1 - i])
            beside = f"{other[0]:g} for" if len(other) == 1 else "best of"
            lines.append((f"shrinkage of {names[i]}, {beside} {names[1 - i]}", i))
        return lines

    def _profile(self, side: int) -> tuple[list[float], Floats, Floats]:
        """Values of one view's shrinkage, with the best mean score and its standard error."""
        mean, error = self.scores.mean(axis=1), fold_errors(self.scores)
        values, at = [], []
        for value in np.unique(self.shrinkages[:, side]):
            rows = np.flatnonzero((self.shrinkages[:, side] == value) & np.isfinite(mean))
            if len(rows):
                values.append(float(value))
                at.append(rows[np.argmax(mean[rows])])
        return values, mean[at], error[at]

    def _scale(self, ax: Any) -> None:
        """A logarithmic axis of the shrinkage, with a place for 0 if it was tried."""
        from matplotlib.ticker import NullLocator

        positive = self.shrinkages[self.shrinkages > 0]
        if len(positive) == self.shrinkages.size:
            ax.set_xscale("log")
        else:  # symlog has a linear part around 0, left of the smallest
            smallest = float(positive.min()) if len(positive) else 1.0
            ax.set_xscale("symlog", linthresh=smallest, linscale=0.5)
            decades = 10.0 ** np.arange(np.ceil(np.log10(smallest)), 1)
            ax.set_xticks([0.0, *decades])
            ax.xaxis.set_minor_locator(NullLocator())
            ax.set_xlim(-0.25 * smallest, 1.2 * max(float(self.shrinkages.max()), smallest))
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _searched(estimator: Any) -> tuple[Any, list[Any], Any]:
    """The model or search that chose the shrinkage, what it tried, and the scores."""
    found = estimator
    while found is not None:
        if hasattr(found, "cv_shrinkages_"):
            return found, list(found.cv_shrinkages_), found.cv_scores_
        results = getattr(found, "cv_results_", {})
        names = [k for k in results if k == "param_shrinkage" or k.endswith("__shrinkage")]
        if names:
            name = names[0].removeprefix("param_")
            tried = [parameters.get(name) for parameters in results["params"]]
            folds = [results[f"split{k}_test_score"] for k in range(found.n_splits_)]
            return found, tried, np.stack(folds, axis=1)
        found = getattr(found, "best_estimator_", getattr(found, "model_", None))
    raise ValueError(
        f"{type(estimator).__name__} has searched no shrinkage: fit a MomentsSearchCV over "
        "'shrinkage', or a CCA with shrinkage='cv'"
    )


def _score_name(model: Any) -> str:
    """The name of the score of a search, or of a model that chose its shrinkage."""
    search = hasattr(model, "cv_results_")
    inner = model.estimator if search else model
    if getattr(model, "scoring", None) is not None:
        return "score"
    inner = getattr(inner, "model", inner)
    name = type(inner).__name__
    if name == "ConditionalGaussian":
        return "log p(y | x) (nats)" if search else "log p(x, y) / p(x) p(y) (nats)"
    return "correlation" if name in ("CCA", "KernelCCA", "MultiviewCCA") else "score"
