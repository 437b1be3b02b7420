"""The choice of a model of cross-modal retrieval, by cross-validated retrieval."""

from __future__ import annotations

import importlib
import itertools
import os
import time
from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse
from sklearn.model_selection import PredefinedSplit
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, dense, result_dtype, to_numpy, warn
from cmstats.kernels.ranks import partner_counts
from cmstats.metrics.hubness import HubnessCorrection
from cmstats.metrics.retrieval import search
from cmstats.metrics.ties import TiedRanks
from cmstats.model_selection.candidates import (
    BANK,
    COSINES,
    GAMMAS,
    NEIGHBOURS,
    Candidate,
    Trials,
)
from cmstats.models.base import RowsModel, length_of
from cmstats.models.dask import refused
from cmstats.models.latent import ComparedViews
from cmstats.rows.dependence import dependence_notes
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.progress import progress_bar
from cmstats.rows.source import take_in_memory
from cmstats.rows.splits import check_groups, deal, fold_ids, numbered

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CrossModalRetriever"]

HostArray = np.ndarray[Any, Any]

ROWS = 8000
"""Pairs that the choice is made on at most."""
NUMBERS = 2**26
"""Numbers of both views that the choice is made on at most: half a gigabyte."""
FEW = 150
"""Below so many pairs folds are repeated, and a cosine within the error is taken."""
REPETITIONS = 3
SCREENED = 2
"""The folds that decompositions and kernels are screened in; of few pairs the first repetition."""
SCREENS = (0.03, 0.3), (0.01, 0.1, 0.6)
"""Shrinkages of kernels: at every bandwidth, and at the best of them."""
FINALISTS = 2
"""Bandwidths and shrinkages that are then tried in all folds."""


class CrossModalRetriever(ComparedViews, RowsModel):
    r"""Retrieval across two modalities by the model that finds held-out partners best.

    On paired rows, every candidate is fitted to the training rows of each fold and ranks the
    held-out partners. The candidates are

    - where both views have one width, the cosine of the rows as they are and less their means,
      which need no fit: for embeddings that were trained together they are hard to beat;
    - `CCA` by its likelihood ratio at every shrinkage, toward independent and, at one width,
      toward aligned views; at the best shrinkage also the weighted cosine and fewer components;
    - `KernelCCA` with Gaussian kernels, by bandwidth, shrinkage and number of components, for
      dense rows;
    - each with and without correction of hubness (`HubnessCorrection`, CSLS with the
      training pairs as bank).

    The best mean is taken. Below 150 pairs, where it is uncertain which that is, folds are dealt
    three times, and where a cosine is within one standard error of the best, it is taken: the
    simplest model is one without a fit. Which cosine that is, the ranks among all pairs tell
    (no pair need be held out of what is not fitted), and correction of hubness must gain more than
    one standard error there. The error is that of the paired differences,

    .. math:: \mathrm{se} = \frac1n \sqrt{\frac{G}{G - 1} \sum_g \Bigl(\sum_{i \in g}
        (d_i - \bar d)\Bigr)^2}

    with :math:`d_i` the best candidate's value of pair i less that of another and g the groups
    (each pair its own without `groups`).

    Parameters
    ----------
    time_budget : float, optional
        Seconds for the choice: when they are spent no further family of candidates is begun. The
        first is always tried, and the fit of the chosen model comes after.
    scoring : str, default="mrr"
        "mrr", the mean reciprocal rank of the partner, or "R@k" for any k; the mean of both
        directions.
    cv : int, splitter or iterable of splits, default=5
        The folds. An int K deals row i, or the i-th group in the order of appearance, to fold
        i mod K.
    random_state : int, RandomState or None
        Draws the repeated folds, the bank, the landmarks, and the pairs of the choice where
        there are more than 8000.
    verbose : int, default=0
        Show a progress bar over the families of candidates, with the best score so far, when
        positive.

    Attributes
    ----------
    results_ : DataFrame
        One row for each candidate, from the best on: what it is (``model``, ``similarity``,
        ``target``, ``shrinkage``, ``n_components``, ``gamma`` as a multiple of the median
        heuristic, ``hubness``); its mean held-out ``score`` and that mean's ``standard_error``;
        how far it is behind the best (``difference``, and its paired ``difference_error``);
        the held-out ``pairs`` that this is of (decompositions and kernels are screened in two
        folds, or in the first dealing of three, and only the best are tried in all); ``seconds``;
        whether it was ``chosen``.
    chosen_ : dict
        What the chosen candidate is.
    model_ : estimator
        The chosen model, fitted to all rows.
    hubness_ : HubnessCorrection or None
        With the bank, where it was chosen.
    score_ : float
        The held-out score of the chosen candidate.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    compare : Several estimators of your own on the same folds, in one table.

    Notes
    -----
    Kernel maps are fitted to all rows without pairing and held fixed over the folds; everything
    that sees the pairing is fitted inside of them. They have 1000 landmarks, and those
    of the model that is fitted in the end up to 2000, with the shrinkage that is the same ridge
    for as many: that of ``model_`` is then larger than that of ``chosen_``. Of more than 3000 rows
    they have 400, and 1200 with the same shrinkage.

    The held-out score of the best of many candidates is a little too good: for an unbiased one
    hold rows out yourself.

    References
    ----------
    Breiman, L., Friedman, J., Olshen, R. and Stone, C. (1984). Classification and Regression
    Trees, section 3.4.3 (the rule of one standard error). Wadsworth.
    Conneau, A. et al. (2018). Word translation without parallel data. ICLR (CSLS).

    Examples
    --------
    >>> from cmstats import CrossModalRetriever, load_emoji
    >>> image, text = load_emoji(return_X_y=True)
    >>> image, text, kept = image[::8], text[::8], slice(1, None, 8)
    >>> retriever = CrossModalRetriever(time_budget=0, random_state=0).fit(image, text)
    >>> retriever.chosen_["model"]
    'CCA'
    >>> nearest, scores = retriever.search(image[:2], text, k=3)
    >>> nearest.shape
    (2, 3)
    """

    _private = RowsModel._private | {"_table"}
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "time_budget": [Interval(Real, 0, None, closed="left"), None],
        "scoring": [str],
        "cv": ["cv_object"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        *,
        time_budget: float | None = None,
        scoring: str = "mrr",
        cv: Any = 5,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.time_budget = time_budget
        self.scoring = scoring
        self.cv = cv
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Choose a model on held-out pairs, and fit it to all rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The first view: an array of any library, a frame, a memory-map, or anything with
            shape, dtype and slicing.
        y : array-like or sparse matrix of shape (n_samples, n_targets)
            The second view; row i is the partner of row i of `X`.
        groups : array of shape (n_samples,), optional
            Rows of one group are in one fold: captions of one image, clips of one film.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If values are not finite, lengths differ, there are fewer than two rows outside of a
            fold, or a parameter is out of range.
        """
        self._validate_params()
        _check_scoring(self.scoring)
        check_row_labels({"X": X, "groups": groups})
        new = self._unfitted()
        blocks = new._blocks(X, y, reset=True)
        notes = new._choose(blocks, groups)
        self._become(new)
        for note in notes:
            warn(note)
        return self

    def _choose(self, blocks: dict[str, Any], groups: Any) -> list[str]:
        """Choose and fit; the sentences about rows that depend on rows of other folds."""
        X, y = blocks["x"], blocks["y"]
        n, seed = length_of(blocks), int(check_random_state(self.random_state).randint(2**31 - 1))
        codes = np.arange(n) if groups is None else numbered(check_groups(groups, n))[0]
        at = _some_rows(n, int(X.shape[1]) + self._y_width, codes, seed)
        with self._naming():
            rows = [self._read(take_in_memory(a, at), v, True) for a, v in ((X, "X"), (y, "y"))]
        views = [to_numpy(dense(a)) for a in rows]
        views = [np.asarray(a, dtype=result_dtype(a)) for a in views]
        few = len(np.unique(codes[at])) < FEW
        repetitions = REPETITIONS if few else 1
        folds = [_folds(self.cv, codes[at], r, seed) for r in range(repetitions)]
        inside = np.all([dealt >= 0 for dealt in folds], axis=0)  # rows of gaps are in no fold
        at, (X_in, y_in) = at[inside], (a[inside] for a in views)
        folds = [dealt[inside] for dealt in folds]
        trials = Trials(X_in, y_in, folds, self.scoring, seed)
        self._try(trials, kernels=not any(scipy.sparse.issparse(a) for a in rows))
        table = _table(trials, codes[at])
        ask = Candidate(COSINES[0]) in table and (few or not next(iter(table)).fitted)
        chosen = _chosen(table, trials.cosines_among_all() if ask else {}, codes[at])
        self.chosen_, self.score_ = vars(chosen).copy(), table[chosen]["score"]
        self._table = [{**row, "chosen": c == chosen} for c, row in table.items()]
        self.model_ = trials.estimator(chosen, n).fit(X, y)
        self.hubness_ = None
        if chosen.hubness:
            bank = np.sort(np.random.default_rng(seed).permutation(at)[:BANK])
            rows = [take_in_memory(a, bank) for a in (X, y)]
            self.hubness_ = HubnessCorrection(k=NEIGHBOURS, size=BANK)
            self.hubness_.fit(*_embedded(self.model_, chosen, *rows))
        dealt = deal(PredefinedSplit(folds[0]), len(at))
        return dependence_notes(dict(zip(("x", "y"), views, strict=True)), dealt)

    def _try(self, trials: Trials, *, kernels: bool) -> None:
        """Evaluate the families of candidates, from the simplest on, while there is time.

        Kernel maps take dense rows only.
        """
        begin = time.perf_counter()

        def in_time() -> bool:
            spent = time.perf_counter() - begin
            return not trials.values or self.time_budget is None or spent < self.time_budget

        widths = {trials.X.shape[1], trials.Y.shape[1]}
        same, few = len(widths) == 1 and widths != {1}, len(trials.folds) > 1
        total = 3 * same + (not same) + 2
        if kernels:
            total += len(GAMMAS) * len(SCREENS[0]) + len(SCREENS[1]) + FINALISTS + 1
        with progress_bar(self.verbose, "candidates", "family", total=total) as bar:

            def tried(family: Callable[..., None], *what: Any) -> None:
                if in_time():
                    family(*what)
                    if self.verbose:
                        best = trials.best(lambda c: True)[0]
                        score = float(np.nanmean(trials.values[best]))
                        bar.set_postfix({self.scoring: f"{score:.3f}"})
                bar.update()

            if same:
                tried(trials.cosines)
            targets: tuple[Literal["independent", "aligned"], ...] = ("aligned", "independent")
            for target in targets if same else targets[1:]:
                tried(trials.path, target)
            screen = slice(0, int(trials.folds[0].max()) + 1 if few else SCREENED)
            for best in trials.best(lambda c: c.model == "CCA")[:1]:
                tried(trials.components, best.target, best.shrinkage, screen)
            refined = trials.best(lambda c: c.similarity == "weighted_cosine")
            self._into_all_folds(trials, tried, trials.components, refined, screen, 1)
            if kernels:
                self._try_kernels(trials, tried, screen)

    @staticmethod
    def _into_all_folds(
        trials: Trials,
        tried: Callable[..., None],
        family: Callable[..., None],
        screened: list[Candidate],
        screen: slice,
        most: int,
    ) -> None:
        """The best of those that were screened, where they may still win, in the other folds."""
        keys = [(c.gamma or c.target, c.shrinkage or 0.0) for c in trials.that_may_win(screened)]
        for first, shrinkage in list(dict.fromkeys(keys))[:most]:
            tried(family, first, shrinkage, slice(screen.stop, None))

    def _try_kernels(self, trials: Trials, tried: Callable[..., None], screen: slice) -> None:
        """Screen kernels in some folds; the best go into all."""

        def screened() -> list[Candidate]:
            return trials.best(lambda c: c.model == "KernelCCA")

        for gamma, shrinkage in itertools.product(GAMMAS, SCREENS[0]):
            tried(trials.kernels, gamma, shrinkage, screen)
        for best in screened()[:1]:
            for shrinkage in SCREENS[1]:
                tried(trials.kernels, best.gamma, shrinkage, screen)
        self._into_all_folds(trials, tried, trials.kernels, screened(), screen, FINALISTS)
        whole = trials.in_all_folds()
        for best in [c for c in screened() if c in whole][:1]:
            tried(trials.all_components, best.gamma, best.shrinkage)

    @property
    def results_(self) -> pd.DataFrame:
        """The table of all candidates."""
        import pandas as pd

        from cmstats.metrics.tables import as_table

        check_is_fitted(self)
        return as_table(pd.DataFrame(self._table))

    def __sklearn_is_fitted__(self) -> bool:
        """Whether there is a model."""
        return hasattr(self, "model_")

    def _coordinates(self, rows: Any, view: str) -> Array:
        given = (rows, None) if view == "x" else (None, rows)
        vectors = _embedded(self.model_, Candidate(**self.chosen_), *given)
        if self.hubness_ is None:
            return vectors
        given = (vectors, None) if view == "x" else (None, vectors)
        return self.hubness_.transform(*given)

    def _vectors(self, *args: Any, **kwargs: Any) -> Array:
        return args[0]

    @refused
    def search(
        self, X: Any, y: Any, k: int = 10, *, queries: Literal["x", "y"] = "x"
    ) -> tuple[Array, Array]:
        """The k best rows of one view for each row of the other.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_x, n_features)
        y : array-like or sparse matrix of shape (n_y, n_targets)
        k : int, default=10
            At most the number of candidates.
        queries : {"x", "y"}, default="x"
            Which are the queries; the others are the candidates.

        Returns
        -------
        indices : array of shape (n_queries, k)
            Rows of the candidates, best first.
        scores : array of the same shape
            Their similarities.
        """
        if queries not in ("x", "y"):
            raise ValueError(f"queries must be 'x' or 'y', got {queries!r}")
        u, v = self.embed(X, y)
        return search(u, v, k) if queries == "x" else search(v, u, k)

    @refused
    def score(self, X: Any, y: Any) -> float:
        """The retrieval of `scoring`, the mean of both directions.

        Parameters
        ----------
        X, y
            As in `fit`: the partner of row i of `X` is row i of `y`, among all rows of `y`.

        Returns
        -------
        float
            Between 0 and 1. It falls with the number of candidates: compare on equally many.
        """
        check_is_fitted(self)
        self._blocks(X, y, reset=False)
        _check_scoring(self.scoring)
        counts = partner_counts(*self.embed(X, y))
        return float(np.mean([TiedRanks.of(count).values(self.scoring) for count in counts]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted retriever to a file of skops, which holds no code.

        Parameters
        ----------
        path : str or path
            By convention ``.skops``. The file is replaced as a whole.

        Raises
        ------
        ImportError
            If skops is not installed.
        """
        check_is_fitted(self)
        part = f"{os.fspath(path)}.part"
        _skops().dump(self, part)
        os.replace(part, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a retriever that `save` has written.

        Parameters
        ----------
        path : str or path

        Returns
        -------
        CrossModalRetriever

        Raises
        ------
        ValueError
            If the file holds types that are not of this package, or no retriever.
        """
        skops = _skops()
        unknown = skops.get_untrusted_types(file=path)
        foreign = [name for name in unknown if not name.startswith("cmstats.")]
        if foreign:
            raise ValueError(
                f"{os.fspath(path)} holds types of other packages ({', '.join(foreign[:3])}): it "
                "was not written by CrossModalRetriever.save"
            )
        found = skops.load(path, trusted=unknown)
        if not isinstance(found, cls):
            raise ValueError(f"{os.fspath(path)} holds a {type(found).__name__}, no {cls.__name__}")
        return found


def _skops() -> Any:
    try:
        return importlib.import_module("skops.io")
    except ImportError:
        raise ImportError(
            "files of models need skops: pip install skops (or use pickle for files that you trust)"
        ) from None


def _embedded(model: Any, chosen: Candidate, X: Any, y: Any) -> Any:
    """The embeddings of the views that are given, by the similarity that was chosen."""
    how = {"kind": chosen.similarity} if chosen.similarity != "cosine" else {}
    return model.embed(X, y, **how)


def _check_scoring(scoring: str) -> None:
    """Raise where a query has no value of this name by the rank of its partner."""
    name = scoring.upper()
    if name == "MRR" or (name.startswith("R@") and name[2:].isdigit() and int(name[2:]) > 0):
        return
    raise ValueError(f'scoring must be "mrr" or "R@k" for a k of at least 1, got {scoring!r}')


def _some_rows(n: int, width: int, codes: HostArray, seed: int) -> HostArray:
    """The rows that the choice is made on: all, or whole groups drawn at random."""
    most = max(200, min(ROWS, NUMBERS // width))
    if n <= most:
        return np.arange(n)
    order = np.random.default_rng(seed).permutation(int(codes.max()) + 1)
    sizes = np.cumsum(np.bincount(codes)[order])
    taken = order[: max(2, int(np.searchsorted(sizes, most, side="right")))]
    return np.flatnonzero(np.isin(codes, taken))


def _folds(cv: Any, groups: HostArray, repetition: int, seed: int) -> HostArray:
    """The fold of each row; from the second repetition on the groups are dealt at random."""
    codes, distinct = numbered(groups)
    given = groups if len(distinct) < len(groups) else None
    if repetition and isinstance(cv, (int, np.integer)):
        order = np.random.default_rng([seed, repetition]).permutation(len(distinct))
        found: HostArray = fold_ids(cv, len(distinct))[order][codes]
    else:
        found = fold_ids(cv, len(groups), groups=given)
    sizes = np.bincount(found[found >= 0])
    for k, size in enumerate(sizes):
        if sizes.sum() - size < 2:
            raise ValueError(
                f"{sizes.sum() - size} rows lie outside of fold {k}: at least 2 are needed to fit"
            )
    return found


def _table(trials: Trials, codes: HostArray) -> dict[Candidate, dict[str, Any]]:
    """What is known of each candidate, from the best on; first those tried in all folds."""
    count = {c: int(times.sum()) for c, times in trials.times.items()}
    most = max(count.values())
    ordered = sorted(trials.best(lambda c: True), key=lambda c: count[c] < most)
    best, rows = trials.values[ordered[0]], {}
    for c in ordered:
        at = np.flatnonzero(np.isfinite(trials.values[c]))
        values = trials.values[c][at]
        behind = best[at] - values
        rows[c] = {
            **vars(c),
            "score": float(values.mean()),
            "standard_error": _standard_error(values, codes[at]),
            "difference": float(behind.mean()),
            "difference_error": _standard_error(behind, codes[at]),
            "pairs": len(at),
            "seconds": trials.seconds[c],
        }
    return rows


def _chosen(
    table: dict[Candidate, dict[str, Any]],
    cosines: dict[Candidate, HostArray],
    codes: HostArray,
) -> Candidate:
    """The best candidate, or where there are `cosines` one within one standard error of it.

    Their values among all pairs tell cosines apart.
    """
    best = next(iter(table))
    if not cosines:
        return best
    simple = _best_cosine(cosines, codes)
    near = table[simple]["difference"] <= table[simple]["difference_error"] + 1e-12
    return simple if near or not best.fitted else best


def _best_cosine(cosines: dict[Candidate, HostArray], codes: HostArray) -> Candidate:
    """The better cosine, corrected for hubs where that gains more than one standard error."""
    plain, corrected = (
        max((c for c in cosines if c.hubness == hubness), key=lambda c: np.nanmean(cosines[c]))
        for hubness in (False, True)
    )
    gain = cosines[corrected] - cosines[plain]
    there = np.isfinite(gain)
    error = _standard_error(gain[there], codes[there])
    return corrected if gain[there].mean() > error + 1e-12 else plain


def _standard_error(values: HostArray, codes: HostArray) -> float:
    """The standard error of a mean of values that depend on each other within groups."""
    at, groups = numbered(codes)
    sums = np.bincount(at, values - values.mean(), minlength=len(groups))
    G = max(len(groups), 2)
    return float(np.sqrt(G / (G - 1) * (sums**2).sum()) / len(values))
