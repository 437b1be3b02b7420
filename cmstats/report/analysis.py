"""The steps of a report: split, choose on the training items, evaluate on the held-out ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, PredefinedSplit

from cmstats.arrays import check_count, dense, once, recorded, to_numpy, warn
from cmstats.datasets import load_emoji
from cmstats.metrics.correlation import column_correlations
from cmstats.model_selection.retriever import CrossModalRetriever
from cmstats.models.cca import CCA
from cmstats.models.pairs import match_probability
from cmstats.report.checks import check_views
from cmstats.report.comparison import compare_models
from cmstats.report.correlations import correlation_evidence
from cmstats.report.findings import Indices
from cmstats.report.galleries import example_galleries
from cmstats.report.loadings import leading_loadings, likely_ids
from cmstats.report.mismatches import find_mismatches
from cmstats.report.report import Report
from cmstats.report.retrieval import retrieval_intervals
from cmstats.report.selection import best_pair, score_shrinkages
from cmstats.report.tables import chosen_model, direction_names, retrieval_table
from cmstats.report.views import dense_view, take_views, with_gaps, without_confounds
from cmstats.rows.chunks import check_blocks
from cmstats.rows.matrix import check_matrix, check_source
from cmstats.rows.names import column_names
from cmstats.rows.pairs import check_row_labels
from cmstats.rows.source import length_hint

__all__ = ["build", "build_emoji"]

MINIMUM = 20
"""The fewest items: 15 to train on, in 5 folds of 3."""
HELD_OUT = 5000
"""The most held-out items."""
SECONDS = {True: 10.0, False: 30.0}
"""For the choice of the model of retrieval, by `quick`."""

EMOJI_QUERIES = (
    "red fruit",
    "sad face",
    "train",
    "heart",
    "time on a clock",
    "arrow pointing left",
    "cat",
)


def build(
    images: Any,
    texts: Any,
    labels: Any = None,
    *,
    title: str = "Cross-modal report",
    views: tuple[str, str] = ("image", "text"),
    split: tuple[Any, Any] | None = None,
    groups: Any = None,
    ids: Any = None,
    nuisance: Any = None,
    names: Sequence[str] | None = None,
    pictures: Callable[[Indices], Any] | Any = None,
    queries: tuple[Sequence[str], Any] | None = None,
    notes: Sequence[str] = (),
    cv: int = 5,
    random_state: int = 0,
    quick: bool = False,
    max_items: int = 20_000,
    command: str = "",
    progress: Callable[[str], None] | None = None,
) -> Report:
    r"""Check two views; fit, choose and evaluate models of correlation and of retrieval.

    Correlations, loadings and tests are those of a `CCA`, whose shrinkages :math:`s_x, s_y`
    maximise the mean canonical correlation

    .. math:: \frac1k \sum_{i=1}^k \operatorname{corr}(X a_i, Y b_i)

    on the held-out folds of the training items (`MomentsSearchCV`), first with
    :math:`s_x = s_y`, then with one of the two changed. Retrieval is by the model that
    `CrossModalRetriever` chooses by the mean reciprocal rank on folds of the training items. Both
    choices are then evaluated once on the held-out items.

    The report also has checks of the data, tests and intervals of the correlations, intervals
    of the retrieval metrics, the pairs that fit worst, and `compare` on the fast models of
    `suggest_models`. The time is bounded: the choice of a model of retrieval begins no new family
    of candidates after 30 seconds (10 where `quick`); of more than `max_items` rows a random sample
    is taken, views of more than 768 columns are replaced by 768 principal components, tests and
    the comparison use a sample; the page says so.

    Parameters
    ----------
    images, texts : array-likes of shapes (n, p), (n, q)
        Features of the two views; row i of both is one item. NaN is a missing entry, which is
        imputed by the mean of the column's training items.
    labels : array of shape (n,), optional
        Classes, for the mAP and for the colours of the plots.
    title : str
        The title of the page.
    views : pair of str, default=("image", "text")
        The names of the views.
    split : pair of arrays of int, optional
        Rows to train on and rows to hold out; by default a random quarter is held out.
    groups : array of shape (n,), optional
        Rows of one group are all trained on or all held out, and in one fold. Tests of the
        correlations are then of the means of groups.
    ids : array of shape (n,), optional
        The item of each row, where items have several rows (captions of one image): rows of one
        item are partners of each other in retrieval, and one group.
    nuisance : array of shape (n, k), optional
        Confounds, which are regressed out of both views with the coefficients of the training
        rows.
    names : sequence of n str, optional
        The names of the items.
    pictures : array of shape (n, h, w, 3), uint8, or callable from indices to one, optional
        Pictures of the items. With names and pictures the page has galleries of examples.
    queries : (list of m str, array of shape (m, q)), optional
        Typed texts and their features, as example queries for the held-out pictures.
    notes : sequence of str, optional
        Sentences for the end of the page.
    cv : int, default=5
        The number of folds of the training items, in random order.
    random_state : int, default=0
        Seed of the split, the folds, samples, permutations and bootstrap.
    quick : bool, default=False
        Leave out the comparison of models and the jackknife, and permute less often.
    max_items : int, default=20000
        The most items in the analysis, a quarter of them (at most 5000) held out.
    command : str, optional
        The command line that made the page, shown on it.
    progress : callable from str, optional
        Called with a sentence before each step.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a view is no matrix of real numbers, holds infinity or only NaN, lengths differ, or
        there are fewer than 20 items.

    References
    ----------
    Hotelling, H. (1936). Relations between two sets of variates. Biometrika 28.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.report import build
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.normal(size=(200, 3))
    >>> X, Y = Z + rng.normal(size=Z.shape), Z @ rng.normal(size=(3, 4))
    >>> report = build(X, Y, quick=True)
    >>> report.table.loc["chance", ("image -> text", "R@10")].round(3)
    np.float64(0.2)
    >>> report.evidence.supported
    3
    """
    clock, say = _Clock(), progress or (lambda _: None)
    blocks = _checked(images, texts, views, max_items)
    n = int(blocks[views[0]].shape[0])
    labels = _check_labels(labels, n)
    if names is not None and len(names) != n:
        raise ValueError(f"there are {len(names)} names for {n} items")
    given_names = [column_names(a, name) for a, name in zip((images, texts), views, strict=True)]
    ids, groups, Z = _beside(n, ids, groups, nuisance)
    train, test, description = _split(n, split, random_state, groups)
    rows, train, test, limits = _bounded(n, train, test, max_items, random_state)
    say("looking the data over")
    with clock("data"):
        given = take_views(blocks[views[0]], blocks[views[1]], rows, views)
        at_train, at_test = np.searchsorted(rows, train), np.searchsorted(rows, test)
        known = None if labels is None else labels[rows]
        summary, warned, checked = check_views(given, rows, views, known, len(train))
        ready = [
            dense_view(a, at_train, name, random_state)
            for a, name in zip(given.views, views, strict=True)
        ]
        (X, _), (Y, _) = ready
        limits += [sentence for _, sentence in ready if sentence]
        known_ids = None if ids is None else ids[rows]
        if Z is not None:
            Z = Z[rows]
            X, Y = (without_confounds(a, Z, at_train) for a in (X, Y))
            limits.append(
                f"{Z.shape[1]} {'confound was' if Z.shape[1] == 1 else 'confounds were'} regressed "
                "out of both views, with the coefficients of the training items."
            )
        if checked < len(rows):
            limits.append(f"The data were looked over on {checked:,} rows, spread evenly.")
    with _model_warnings() as remarks:
        folds, train_folds = _folds(
            cv, random_state, None if groups is None else groups[rows], at_train
        )
        say(f"{len(train)} items to train on, {len(test)} held out; choosing the shrinkage")
        xt, yt, xe, ye = X[at_train], Y[at_train], X[at_test], Y[at_test]
        with clock("choosing"):
            pairs, scores = score_shrinkages(xt, yt, train_folds)
            best = best_pair(pairs, scores)
            model = CCA(shrinkage=best).fit(xt, yt)
        say(f"shrinkage {best[0]:g} and {best[1]:g}; choosing a model of retrieval")
        with clock("choosing retrieval"):
            retriever = CrossModalRetriever(
                time_budget=SECONDS[quick], cv=cv, random_state=random_state
            ).fit(xt, yt, groups=None if groups is None else groups[train])
        say(f"{chosen_model(retriever.chosen_)}; judging on the held-out items")
        with clock("judging"):
            held_labels = None if labels is None else labels[test]
            held_ids = None if known_ids is None else known_ids[at_test]
            table = retrieval_table(
                retriever, model, (xt, yt), xe, ye, held_labels, views, held_ids
            )
            u, v = (to_numpy(a) for a in retriever.embed(xe, ye))
            found = retrieval_intervals(
                u, v, held_labels, direction_names(views), random_state, held_ids
            )
            variates = tuple(to_numpy(a) for a in model.transform(xe, ye))
            held_out = column_correlations(*variates)
            trained = to_numpy(model.correlations_)
        say("tests, intervals and doubtful pairs")
        with clock("tests and intervals"):
            tested = correlation_evidence(
                X, Y, at_train, trained, held_out,
                len(test if groups is None else np.unique(groups[test])), random_state, quick, Z,
                None if groups is None else groups[rows], with_gaps(given.views),
            )  # fmt: skip
        with clock("doubtful pairs"):
            doubtful = find_mismatches(X, Y, best, folds, random_state)
            doubtful.table[["row", "best_row"]] = rows[doubtful.table[["row", "best_row"]]]
            matches = match_probability(
                xe, ye, prior=0.5, model=FrozenEstimator(model), random_state=random_state
            )
        models = None
        if not quick:
            say("comparing models")
            with clock("comparing models"):
                models = compare_models(X, Y, known, at_train, at_test, best, random_state)
    galleries = example_galleries(retriever, xe, ye, test, names, pictures, queries)
    return Report(
        title=title, views=views, model=model, retriever=retriever, table=table, retrieval=found,
        evidence=tested, mismatches=doubtful, matches=matches, models=models, summary=summary,
        warned=warned,
        shrinkages=pairs, shrinkage_scores=scores, train_correlations=trained,
        held_out_correlations=held_out, variates=(variates[0], variates[1]),
        loadings=leading_loadings(given.views, at_train, model, (X, Y), views, given_names),
        likely_ids=likely_ids(given.views, views, given_names),
        labels=held_labels, names=names, train=train, test=test,
        shapes=(given.sizes[0][0], given.sizes[1][0]), split=description, seconds=clock.total(),
        timings=clock.parts, galleries=galleries, limits=limits,
        settings={
            "seed": f"{random_state}", "folds": f"{cv}, in random order",
            "items looked at, at most": f"{max_items:,}", "quick": "yes" if quick else "no",
            "command": command,
        },
        reproduce=_reproduction(best, retriever, split is not None, bool(limits), random_state),
        remarks=tuple(remarks), notes=notes,
    )  # fmt: skip


def build_emoji(*, quick: bool = True, progress: Callable[[str], None] | None = None) -> Report:
    """`build` on the emoji set that ships with the package, with its own split.

    Parameters
    ----------
    quick : bool, default=True
        As in `build`.
    progress : callable from str, optional
        Called with a sentence before each step.

    Returns
    -------
    Report
        The labels are the 9 groups of emoji.

    Examples
    --------
    >>> from cmstats.report import build_emoji
    >>> report = build_emoji()
    >>> len(report.train), len(report.test), report.best("R@10", "text -> image") > 0.4
    (1402, 468, True)
    """
    emoji = load_emoji()
    return build(
        emoji.image,
        emoji.text,
        emoji.group,
        title="Emoji",
        split=(emoji.train, emoji.test),
        names=emoji.names.tolist(),
        pictures=emoji.thumbnails,
        queries=(EMOJI_QUERIES, emoji.encode_text(EMOJI_QUERIES)),
        notes=(
            "Features: oriented gradients and colours of the glyph; TF-IDF of its name and "
            "keywords on latent semantic axes. Both were fitted on the training items.",
            "Glyph images: Apache-2.0, Google Inc. Names, groups and keywords: Unicode, Inc. "
            "The licences ship with cmstats, in cmstats/datasets/data/LICENSES.",
        ),
        quick=quick,
        command="cmstats demo",
        progress=progress,
    )


@contextmanager
def _model_warnings() -> Iterator[list[str]]:
    """Collect the distinct UserWarnings of the models for the page; issue all others again."""
    remarks: list[str] = []
    with recorded() as caught:
        yield remarks
    for message, category in once(caught):
        if not issubclass(category, UserWarning):
            warn(message, category)
            continue
        sentence = " ".join(message.split())
        if sentence not in remarks:
            remarks.append(sentence)


class _Clock:
    """Wall-clock times of the parts of a report."""

    def __init__(self) -> None:
        self.begin, self.parts = time.perf_counter(), dict[str, float]()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.parts[part] = time.perf_counter() - begin

    def total(self) -> float:
        return time.perf_counter() - self.begin


def _checked(images: Any, texts: Any, views: tuple[str, str], max_items: int) -> dict[str, Any]:
    """Validate the views; matrices on a disk are not read yet."""
    check_count("max_items", max_items, MINIMUM)
    if views[0] == views[1]:
        raise ValueError(f"views={views!r} must be two different names")
    check_row_labels(dict(zip(views, (images, texts), strict=True)))
    blocks = {
        name: check_source(a, name, ensure_finite="allow-nan")
        for name, a in zip(views, (images, texts), strict=True)
    }
    X, Y = blocks.values()
    if X.shape[0] != Y.shape[0]:
        raise ValueError(
            f"{views[0]} has shape {tuple(X.shape)} and {views[1]} has shape {tuple(Y.shape)}: "
            "row i of both is one item, so they need the same number of rows"
            f"{length_hint(dict(zip(views, (X, Y), strict=True)))}"
        )
    if X.shape[0] < MINIMUM:
        raise ValueError(
            f"a report needs at least {MINIMUM} items, a quarter of them to hold out, got "
            f"{X.shape[0]}"
        )
    return check_blocks(blocks)


def _bounded(
    n: int, train: Indices, test: Indices, max_items: int, seed: int
) -> tuple[Indices, Indices, Indices, list[str]]:
    """Sample at most `max_items` items: all rows used, training rows, held-out rows, a sentence."""
    rng = np.random.default_rng(seed)
    total = len(train) + len(test)
    most = [max_items - max_items // 4, min(max_items // 4, HELD_OUT)]
    if total <= max_items and len(test) <= HELD_OUT:
        return np.arange(n), train, test, []
    train, test = (
        np.sort(rng.permutation(rows)[:m]) for rows, m in zip((train, test), most, strict=True)
    )
    sentence = (
        f"Of {total:,} items {len(train) + len(test):,} were looked at, drawn at random "
        f"(seed {seed}): {len(train):,} to train on, {len(test):,} held out."
    )
    return np.union1d(train, test), train, test, [sentence]


def _reproduction(
    shrinkage: Any, retriever: CrossModalRetriever, fixed: bool, limited: bool, seed: int
) -> str:
    """Python code that fits and evaluates the same models."""
    split = (
        "# train, test: the rows of the split that was given"
        if fixed
        else f"order = np.random.default_rng({seed}).permutation(len(X))\n"
        "test, train = np.split(order, [round(len(X) / 4)])"
    )
    limit = "# X, Y: the rows and columns that this page says it used\n" if limited else ""
    return (
        "import numpy as np\n"
        "from cmstats import CCA, CrossModalRetriever, permutation_test, retrieval_report\n\n"
        f"{limit}{split}\n"
        f"model = {retriever!r}.fit(X[train], Y[train])\n"
        "print(retrieval_report(*model.embed(X[test], Y[test])), model.results_)\n"
        f"cca = CCA(shrinkage=({shrinkage[0]:g}, {shrinkage[1]:g})).fit(X[train], Y[train])\n"
        "print(cca.score(X[test], Y[test]))\n"
        f'print(permutation_test(X[train], Y[train], shrinkage="auto", random_state={seed}))'
    )


def _check_labels(labels: Any, n: int) -> npt.NDArray[Any] | None:
    """Labels as a vector of length n on the host."""
    if labels is None:
        return None
    labels = to_numpy(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (n,):
        raise ValueError(f"labels has shape {labels.shape}, expected ({n},): one for each item")
    return np.asarray(labels)


def _beside(n: int, ids: Any, groups: Any, nuisance: Any) -> tuple[Any, Any, Any]:
    """Checked ids, groups (those of the items where there are ids alone) and confounds."""
    found = []
    for name, values in (("ids", ids), ("groups", groups)):
        codes = None if values is None else pd.factorize(np.asarray(to_numpy(values)))[0]
        if codes is not None and codes.shape != (n,):
            raise ValueError(f"{name} has shape {codes.shape}, expected ({n},): one a row")
        if codes is not None and (codes < 0).any():
            raise ValueError(f"{name} is missing in row {int(np.argmax(codes < 0))}")
        found.append(codes)
    if nuisance is None:
        return found[0], found[0] if found[1] is None else found[1], None
    Z = to_numpy(dense(check_matrix(nuisance, "nuisance"))).astype(np.float64)
    if Z.shape[0] != n:
        raise ValueError(f"nuisance has {Z.shape[0]} rows for {n} items")
    return found[0], found[0] if found[1] is None else found[1], Z


def _folds(cv: int, seed: int, groups: Any, train: Any) -> tuple[Any, Any]:
    """The folds of all rows and of the training rows; groups stay together."""
    if groups is None:
        folds = KFold(cv, shuffle=True, random_state=seed)
        return folds, folds
    count = int(groups.max()) + 1
    if len(np.unique(groups[train])) < cv:
        raise ValueError(
            f"the training items have {len(np.unique(groups[train]))} groups, fewer than {cv} folds"
        )
    _, dense_codes = np.unique(groups[train], return_inverse=True)
    order = np.random.default_rng(seed)
    return (
        PredefinedSplit(order.permutation(count)[groups] % cv),
        PredefinedSplit(order.permutation(int(dense_codes.max()) + 1)[dense_codes] % cv),
    )


def _split(
    n: int, split: tuple[Any, Any] | None, seed: int, groups: Any
) -> tuple[Indices, Indices, str]:
    """Training and held-out rows, and a description of the split."""
    if split is not None:
        train, test = (np.asarray(rows, dtype=np.intp) for rows in split)
        return train, test, "a fixed split"
    held = round(n / 4)
    if groups is not None:
        order = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
        sizes = np.cumsum(np.bincount(groups)[order])
        out = order[: int(np.searchsorted(sizes, held)) + 1]
        if len(out) == len(order):
            raise ValueError(f"{len(order)} groups are too few to hold out a quarter of the items")
        mask = np.isin(groups, out)
        what = f"{len(out)} of {len(order)} groups at random, seed {seed}"
        return np.flatnonzero(~mask), np.flatnonzero(mask), what
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[held:]), np.sort(order[:held]), f"a random quarter, seed {seed}"
