"""Many models on the same folds in one table, learning curves, and which models to try."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from cmstats.metrics.hubness import HubnessCorrection
from cmstats.metrics.retrieval import DIRECTIONS, metric_names
from cmstats.metrics.tables import as_table
from cmstats.model_selection.judging import with_classifiers
from cmstats.model_selection.records import Comparison, Record
from cmstats.model_selection.suggestions import Suggestions, suggest_models
from cmstats.rows.progress import check_shown, progress_bar
from cmstats.rows.splits import numbered

__all__ = ["Suggestions", "compare", "learning_curves", "overtakes", "suggest_models"]

HostArray = np.ndarray[Any, Any]

SECONDS = ("fit_seconds", "query_seconds")


# ----------------------------------------------------------------------------- the table
def compare(
    estimators: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    task: Literal["retrieval", "classification"] = "retrieval",
    cv: Any = 5,
    groups: Any = None,
    labels: Any = None,
    baseline: str | None = None,
    metric: str | None = None,
    ks: Iterable[int] = (1, 5, 10),
    hubness: HubnessCorrection | None = None,
    n_resamples: int = 2000,
    scaling: bool | Sequence[int] = False,
    memory: bool = True,
    on_error: Literal["row", "raise"] = "row",
    random_state: Any = None,
    verbose: bool = False,
) -> pd.DataFrame:
    r"""Compare two-view models on the same held-out rows, in one table.

    Every estimator is cloned, fitted to the training rows of each fold and judged on its test
    rows; numbers are means over the folds, seconds medians. Where both views have one width,
    the cosine of the features as they are is a row of its own, "raw cosine".

    Parameters
    ----------
    estimators : dict of name -> estimator
        Anything with ``fit(X, y)`` and one of `embed`, `similarity`, `transform`, `predict`,
        `logpdf`: the models here, scikit-learn's CCA and regressors, the deep baselines. An
        estimator whose `fit` has `labels` gets those of the training rows; one of several
        views (`MultiviewCCA`) gets them as a third view of indicators.
    X, y : array-likes of shape (n_samples, n_features), (n_samples, n_targets)
        Paired rows in memory: arrays of any library, frames, sparse matrices, lists.
    task : {"retrieval", "classification"}, default="retrieval"
        "classification" puts rows beside the models that tell how far class labels go: "semantic
        matching" of both views (`SemanticMatching`) and "logistic regression, x" and ", y", each on
        one view. They, and every model with `labels` in `fit`, learn from the labels of the
        training rows; the metric is the accuracy of `predict`. It needs `labels`.
    cv : int, splitter or iterable of (train, test), default=5
        The folds, the same for all. An int K deals row i, or the i-th of the `groups`, to fold
        i mod K as everywhere (`Moments.folds`); for other folds pass a splitter, such as
        ``KFold(5, shuffle=True, random_state=0)``, which sees `labels` as its y.
    groups : array of shape (n_samples,), optional
        Labels of rows that depend on each other (captions of one image, scans of one subject):
        they are in one fold, and drawn together for intervals and p-values. An estimator whose
        `fit` has `groups` gets those of the training rows.
    labels : array-like of shape (n_samples,), optional
        Classes, for mAP and for models that learn from them.
    baseline : str, optional
        The name (or "raw cosine") of the model that all others are tested against.
    metric : str, optional
        What is tested: "MRR", "R@k" with k of `ks`, "mAP", "log_likelihood", "R2" or
        "accuracy". By default "mAP" with labels and "MRR" (mean reciprocal rank) without; for
        models that do not retrieve "R2", then "log_likelihood".
    ks : iterable of int, default=(1, 5, 10)
        Cut-offs of the recalls.
    hubness : HubnessCorrection, optional
        Retrieval by scores that are corrected for hubs: a clone is fitted to the embeddings that
        each model gives its training rows. For models with `embed` or `transform`.
    n_resamples : int, default=2000
        Bootstrap samples of the items.
    scaling : bool or sequence of int, default=False
        Also fit to sub-samples (of these sizes) for `scaling_exponent`.
    memory : bool, default=True
        Also measure memory, in one more fit of each model: the instruments would slow down
        those that are timed.
    on_error : {"row", "raise"}, default="row"
        A model that fails has NaN, and why in the column `error`; or the error is raised.
    random_state : int, RandomState or None, default=None
        For the bootstrap, and for the estimators whose own `random_state` is None.
        With an int, all but seconds and memory are the same in every run.
    verbose : bool, default=False
        Show a progress bar.

    Returns
    -------
    DataFrame
        One row a model, in the order given; NaN where a model has no such quantity.

        - the tested metric and its standard error over the folds (``MRR``, ``MRR_se``), and
          with a `baseline` the mean difference of the items to it, its 95 % interval
          (``ci_low``, ``ci_high``) and its two-sided ``p_value``;
        - ``R@k``, ``median_rank``, ``MRR``, ``mAP`` (with labels): the mean of both directions
          of `retrieval_report`, among the items of a fold. ``ranked_by`` tells by what:
          `embed` or else `similarity`, or the cosine of the variates of `transform`, or the
          cosine of ``predict(X)`` with y, both less the mean of y in training;
        - ``total_correlation``: the sum of the held-out correlations of paired variates, where
          `transform` gives both views (it grows with their number: compare models of one);
        - ``log_likelihood``: the mean of ``logpdf(X, y)``, log p(y | x) in nats, of a row;
        - ``R2`` of ``predict(X)``, the mean of the targets; ``accuracy`` of predicted labels
          (each where some model has it);
        - ``stability``, from 0 to 1: how far the models of two folds agree on the rows held
          out from one of them, the mean over pairs of folds and views. The mean cosine of the
          principal angles between the subspaces of their variates (embeddings, where there is
          no `transform`); for codes wider than half of these rows linear CKA;
        - ``R@1 (x -> y)``, ``R@1 (y -> x)`` and so on: retrieval in each direction, of which the
          columns without a direction are the mean (at the end of the table);
        - ``fit_seconds``, ``query_seconds`` (embedding both views of a test fold, and all
          scores), ``peak_memory_mb`` (below), ``n_parameters`` (numbers the fitted model keeps),
          ``scaling_exponent`` (on request), ``device``;
        - ``error``, if some model failed.

        ``table.attrs`` holds plain dicts and lists: "metric", "baseline", "standard_errors"
        (by column and model) and "folds" (one record for each model and fold:
        ``pandas.DataFrame(table.attrs["folds"])``).

    Raises
    ------
    ValueError
        No estimators, unknown baseline or metric, lengths that do not fit, folds without rows.
    TypeError
        An estimator that cannot be fitted or asked for anything.

    Notes
    -----
    **Intervals and p-values** are of a paired bootstrap over items (or groups), pooled over the
    folds (an item that is tested several times counts once, with its mean). The item's value is
    the mean of both directions; R2 is shared out among the items. p is the share of resampled
    differences that lie as far from the observed one as that lies from 0. They tell whether
    other *items* would change the order, with the fitted models and the candidates held fixed;
    other training rows would add variance, of which `stability` and the standard errors over
    folds tell.

    **Peak memory** is the extra memory while fitting to the first training fold, in MiB: the
    largest of what tracemalloc sees (arrays of NumPy), the growth of the resident memory (other
    libraries on the CPU; Linux only), and torch's and CuPy's memory on the GPU. What a library
    takes from its own free list, filled by the fits before, shows in none: it is a lower bound,
    and a low one for torch on the CPU.

    **Seconds** are wall-clock, medians over the folds, since the first fit of a process may
    include imports and compilation.

    References
    ----------
    Efron, B. and Tibshirani, R. (1993). An Introduction to the Bootstrap, chapter 16.
    Kornblith, S., Norouzi, M., Lee, H. and Hinton, G. (2019). Similarity of neural network
    representations revisited. ICML.

    Examples
    --------
    >>> from cmstats import CCA, ConditionalGaussian, load_emoji
    >>> from cmstats.model_selection.comparison import compare
    >>> image, text = load_emoji(return_X_y=True)
    >>> table = compare(
    ...     {"CCA": CCA(20, shrinkage=0.1), "Gaussian": ConditionalGaussian(shrinkage=0.3)},
    ...     image[::4], text[::4], cv=2, baseline="CCA", random_state=0,
    ... )
    >>> list(table.index)
    ['CCA', 'Gaussian']
    >>> bool(table.loc["CCA", "R@10"] > 0.1), float(table.loc["CCA", "difference"])
    (True, 0.0)
    """
    check_shown("verbose", verbose)
    if task not in ("retrieval", "classification"):
        raise ValueError(f"task={task!r} is unknown: use 'retrieval' or 'classification'")
    if task == "classification":
        if labels is None:
            raise ValueError("task='classification' needs labels, the class of each row")
        metric = metric or "accuracy"
        estimators = with_classifiers(estimators)
    of = Comparison(estimators, X, y, labels, cv, groups, ks, random_state, on_error, hubness)
    _check_names(of, baseline, metric)
    records = {}
    for name, estimator in progress_bar(verbose, "models", "model", items=of.estimators.items()):
        records[name] = Record(of, name, estimator).run(memory=memory, scaling=scaling)
    frame = _summary(of, records)
    frame = _tested(of, records, frame, baseline, metric, n_resamples)
    frame.attrs["folds"] = [
        {"model": name, "fold": k, **values}
        for name, record in records.items()
        for k, values in enumerate(record.folds)
    ]
    return frame


def _check_names(task: Comparison, baseline: str | None, metric: str | None) -> None:
    if baseline is not None and baseline not in task.estimators:
        raise ValueError(
            f"baseline={baseline!r} is none of the models: {', '.join(map(repr, task.estimators))}"
        )
    known = ["MRR", *(f"R@{k}" for k in task.ks), "log_likelihood", "R2", "accuracy"]
    known += ["mAP"] if task.labels is not None else []
    if metric is not None and metric not in known:
        raise ValueError(f"metric={metric!r} is unknown here: use one of {', '.join(known)}")


# ------------------------------------------------------------------------------- summaries
def _summary(task: Comparison, records: dict[str, Record]) -> pd.DataFrame:
    """Means over the folds, in the order of columns that the docstring promises."""
    names = metric_names(task.ks, task.labels)
    quality = [*names, "total_correlation", "log_likelihood"]
    seen = {name for record in records.values() for fold in record.folds for name in fold}
    quality += [name for name in ("R2", "accuracy") if name in seen]
    both_ways = [f"{name} ({direction})" for direction in DIRECTIONS for name in names]
    of_folds = [*quality, *both_ways, *SECONDS]
    extra = {name for record in records.values() for name in record.extra}
    columns = [*quality, "stability", *SECONDS, "peak_memory_mb"]
    columns += ["n_parameters", *sorted(extra & {"scaling_exponent"}), "ranked_by", "device"]
    columns += both_ways
    columns += sorted(extra & {"error"})
    rows, errors = [], {}
    for name, record in records.items():
        folds = pd.DataFrame(record.folds, columns=of_folds, dtype=float)
        values = {**folds.mean(skipna=False)} if len(folds) else {}
        # The first fit of a process compiles and imports, which a median leaves out.
        values.update({name: folds[name].median() for name in SECONDS if name in values})
        rows.append({**values, **record.extra})
        errors[name] = folds.std(ddof=1) / math.sqrt(max(len(folds), 1))
    frame = pd.DataFrame(rows, index=pd.Index(records, name="model"), columns=columns)
    if frame["n_parameters"].notna().all():
        frame["n_parameters"] = frame["n_parameters"].astype(np.int64)
    frame.attrs["standard_errors"] = {
        column: {name: float(errors[name][column]) for name in records} for column in of_folds
    }
    return as_table(frame)


def _tested(
    task: Comparison,
    records: dict[str, Record],
    frame: pd.DataFrame,
    baseline: str | None,
    metric: str | None,
    n_resamples: int,
) -> pd.DataFrame:
    """The tested metric to the front, with its error and the differences to the baseline."""
    chosen = metric or _default_metric(task, frame, baseline)
    frame.attrs.update(metric=chosen, baseline=baseline)
    column = frame.pop(chosen) if chosen in frame else np.full(len(frame), math.nan)
    frame.insert(0, chosen, column)
    errors = frame.attrs["standard_errors"].get(chosen, {})
    frame.insert(1, f"{chosen}_se", [errors.get(name, math.nan) for name in frame.index])
    if baseline is not None:
        base = _pooled(task, records[baseline], chosen)
        tests = [
            paired_bootstrap(
                _pooled(task, record, chosen) - base, n_resamples, task.seed, task.groups
            )
            for record in records.values()
        ]
        for at, name in enumerate(("difference", "ci_low", "ci_high", "p_value")):
            frame.insert(2 + at, name, [test[at] for test in tests])
    return frame


def _default_metric(task: Comparison, frame: pd.DataFrame, baseline: str | None) -> str:
    """The first metric that the baseline has, or without one any model."""
    first = "mAP" if task.labels is not None else "MRR"
    for name in (first, "R2", "log_likelihood"):
        if name in frame and frame.loc[slice(baseline, baseline), name].notna().any():
            return name
    return first


def _pooled(task: Comparison, record: Record, metric: str) -> HostArray:
    """The metric of each item, in the order of the rows; NaN of those never tested."""
    total, count = np.zeros(task.n), np.zeros(task.n)
    for (_, test), items in zip(task.splits, record.items, strict=False):
        if metric not in items:
            return np.full(task.n, math.nan)
        np.add.at(total, test, items[metric])
        np.add.at(count, test, 1)
    return np.asarray(np.divide(total, count, out=np.full(task.n, math.nan), where=count > 0))


def paired_bootstrap(
    differences: HostArray, n_resamples: int, seed: int, groups: HostArray | None = None
) -> tuple[float, float, float, float]:
    """Mean difference, its 95 % percentile interval, and the two-sided p-value of 0.

    Items are drawn, or whole groups of them.
    """
    known = ~np.isnan(differences)
    total, count = differences[known], np.ones(known.sum())
    if not len(total):
        return (math.nan,) * 4
    mean = float(total.mean())
    if groups is not None:
        of_item = numbered(groups[known])[0]
        total, count = np.bincount(of_item, weights=total), np.bincount(of_item).astype(float)
    rng = np.random.default_rng(seed)
    means = np.empty(n_resamples)
    step = max(1, 2_000_000 // len(total))  # the drawn positions of a step take 16 MB
    for at in range(0, n_resamples, step):
        drawn = rng.integers(0, len(total), (min(step, n_resamples - at), len(total)))
        means[at : at + step] = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    as_far = np.abs(means - mean) >= abs(mean) * (1 - 1e-12)
    return mean, float(low), float(high), float((1 + as_far.sum()) / (1 + n_resamples))


# --------------------------------------------------------------------------- learning curves
def learning_curves(
    estimators: Mapping[str, Any],
    X: Any,
    y: Any,
    *,
    sizes: Iterable[float] | None = None,
    cv: Any = 5,
    groups: Any = None,
    labels: Any = None,
    ks: Iterable[int] = (1, 5, 10),
    on_error: Literal["row", "raise"] = "row",
    random_state: Any = None,
    verbose: bool = False,
) -> pd.DataFrame:
    """Quality over the number of training pairs: which model needs how many.

    In each fold every model is fitted to the first n of the shuffled training rows (so larger
    sets contain smaller ones) and judged on the whole test fold.

    Parameters
    ----------
    estimators, X, y, cv, groups, labels, ks, on_error, random_state, verbose
        As in `compare`.
    sizes : iterable of int, or of float in (0, 1], optional
        Numbers of training pairs, or shares of the smallest training fold; by default five
        from 1/16 to all of it, each twice the one before.

    Returns
    -------
    DataFrame
        Columns "model", "n", "metric", "mean" and "se" (the standard error over folds), one row
        for each of them. A model that fails at some n (too few rows) has NaN there and a
        warning says why.

    See Also
    --------
    overtakes : The number of pairs at which one model passes another.

    Examples
    --------
    >>> from cmstats import CCA, load_emoji
    >>> from cmstats.model_selection.comparison import learning_curves
    >>> image, text = load_emoji(return_X_y=True)
    >>> curves = learning_curves(
    ...     {"CCA": CCA(20, shrinkage=0.3)}, image, text, sizes=[100, 800], cv=2, random_state=0
    ... )
    >>> few, many = curves[curves["metric"] == "R@10"]["mean"]
    >>> bool(few < many)
    True
    """
    check_shown("verbose", verbose)
    task = Comparison(estimators, X, y, labels, cv, groups, ks, random_state, on_error)
    counts = _curve_sizes(sizes, min(len(train) for train, _ in task.splits))
    splits = task.splits
    rng = np.random.default_rng(task.seed)
    orders = [rng.permutation(train) for train, _ in splits]
    frames = []
    pairs = list(itertools.product(counts, task.estimators.items()))
    for n, (name, estimator) in progress_bar(verbose, "models", "model", items=pairs):
        task.splits = [(order[:n], test) for order, (_, test) in zip(orders, splits, strict=True)]
        record = _Curve(task, f"{name}, n={n}", estimator).run(memory=False, scaling=False)
        folds = pd.DataFrame(record.folds)
        part = pd.DataFrame({"mean": folds.mean(), "se": folds.std() / math.sqrt(len(splits))})
        part = part.rename_axis("metric").reset_index()
        part.insert(0, "n", n)
        part.insert(0, "model", name)
        frames.append(part)
    return _with_gaps(frames, list(task.estimators), counts)


class _Curve(Record):
    """A record without what only the table needs."""

    def _probe_rows(self) -> list[HostArray]:
        return []


def _curve_sizes(sizes: Iterable[float] | None, most: int) -> list[int]:
    given = [2.0**-k for k in range(4, -1, -1)] if sizes is None else list(sizes)
    shares = [isinstance(s, (float, np.floating)) for s in given]
    counts = [round(s * most) if share else int(s) for s, share in zip(given, shares, strict=True)]
    if sizes is None:
        counts = [n for n in counts if n >= 2]
    if not counts or min(counts) < 2 or max(counts) > most:
        raise ValueError(
            f"sizes must be from 2 to {most} rows (the smallest training fold), or shares of it "
            f"in (0, 1]; got {given}"
        )
    return sorted(set(counts))


def _with_gaps(frames: list[pd.DataFrame], models: list[str], counts: list[int]) -> pd.DataFrame:
    """One long frame, with NaN where a model has a metric at other n only."""
    frame = pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)
    kinds = [(m, k) for m in models for k in frame.loc[frame["model"] == m, "metric"].unique()]
    every = [(m, n, k) for m, k in kinds for n in counts]
    out = frame.set_index(["model", "n", "metric"])
    index = pd.MultiIndex.from_tuples(every, names=out.index.names) if every else out.index
    return out.reindex(index).reset_index()


def overtakes(curves: pd.DataFrame, model: str, other: str, metric: str = "MRR") -> float:
    """The number of training pairs from which on `model` is better than `other`.

    Parameters
    ----------
    curves : DataFrame
        From `learning_curves`.
    model, other : str
        Names in it.
    metric : str, default="MRR"
        One of its metrics; small values count as good for "median_rank" and for seconds.

    Returns
    -------
    float
        Between the two sizes where the difference of the means last changes its sign, linear in
        log n. The smallest size if `model` is better throughout, infinity if it is not at
        the largest.

    Raises
    ------
    ValueError
        An unknown model or metric, or no size at which both have a value.

    Examples
    --------
    >>> import pandas as pd
    >>> from cmstats.model_selection.comparison import overtakes
    >>> curves = pd.DataFrame({
    ...     "model": ["slow"] * 3 + ["quick"] * 3, "n": [100, 200, 400] * 2,
    ...     "metric": "MRR", "mean": [0.1, 0.3, 0.6, 0.3, 0.35, 0.4],
    ... })
    >>> round(overtakes(curves, "slow", "quick"))
    230
    """
    of_metric = curves[curves["metric"] == metric]
    wide = of_metric.pivot(index="n", columns="model", values="mean")
    for name in (model, other):
        if name not in wide:
            raise ValueError(
                f"the curves have no {metric!r} of {name!r}: models are "
                f"{', '.join(map(repr, curves['model'].unique()))}, metrics "
                f"{', '.join(map(repr, curves['metric'].unique()))}"
            )
    ahead = (wide[model] - wide[other]).dropna().sort_index()
    if ahead.empty:
        raise ValueError(f"{model!r} and {other!r} have no size in common with a value of {metric}")
    if metric == "median_rank" or metric.endswith("seconds"):
        ahead = -ahead
    n, d = ahead.index.to_numpy(float), ahead.to_numpy(float)
    behind = np.flatnonzero(d <= 0)
    if not len(behind):
        return float(n[0])
    last = int(behind[-1])
    if last == len(n) - 1:
        return math.inf
    share = d[last] / (d[last] - d[last + 1])
    return float(n[last] * (n[last + 1] / n[last]) ** share)
