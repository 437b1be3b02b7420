"""The steps of a report: split, choose on the training items, judge on the held-out ones."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import KFold

from cmstats.arrays import take_rows, to_numpy
from cmstats.datasets.loaders import load_emoji
from cmstats.metrics.retrieval import retrieval_chance, retrieval_report, search
from cmstats.model_selection.search import MomentsSearchCV
from cmstats.models.cca import CCA, Kind
from cmstats.moments.shrinkage import SHRINKAGES
from cmstats.plotting.correlations import column_correlations
from cmstats.report.cells import METRICS, cell, similarity_name
from cmstats.report.checks import look_over
from cmstats.report.evidence import evidence, mismatches, retrieval
from cmstats.report.models import compare_models
from cmstats.report.prepared import take_given, usable
from cmstats.report.result import Gallery, Indices, Report, Thing
from cmstats.rows.chunks import check_blocks, is_lazy
from cmstats.rows.matrix import check_matrix

__all__ = ["build", "build_emoji"]

KINDS: tuple[Kind, ...] = get_args(Kind)
KS = (1, 5, 10)
MINIMUM = 20  # items: 15 to train on, in 5 folds of 3
VALIDATION = 2000  # items of a fold on which the similarities are compared: enough, and quick
HELD_OUT = 5000  # items that are searched among

EMOJI_QUERIES = (
    "red fruit",
    "sad face",
    "train",
    "heart",
    "time on a clock",
    "arrow pointing left",
    "cat",
)


# ----------------------------------------------------------------------------- building
def build(
    images: Any,
    texts: Any,
    labels: Any = None,
    *,
    title: str = "Cross-modal report",
    views: tuple[str, str] = ("image", "text"),
    split: tuple[Any, Any] | None = None,
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
    r"""Look two views over, choose, fit and judge a CCA, and compare it with other models.

    The shrinkages are those with the best mean canonical correlation
    :math:`\frac1k\sum_i \mathrm{corr}(Xa_i, Yb_i)` on the held-out folds of the training items
    (`MomentsSearchCV`), first one for both views, then one for each around it; the
    similarity is the one with the best mean reciprocal rank on the same folds. Both are then
    judged once on the held-out items.

    Around that: what to look at in the data, tests and intervals of the correlations,
    intervals of the retrieval metrics, the pairs that fit worst, and `compare` on the quick
    ones of `suggest_models`. All takes bounded time: rows beyond `max_items` are left out at
    random, views of more than 768 columns are replaced by as many principal components, tests
    and the comparison take a sample; the page says so.

    Parameters
    ----------
    images, texts : array-likes of shapes (n, p), (n, q)
        Features of the two views; row i of both is one item. NaN is a missing entry, for which
        the mean of the column's training items stands in.
    labels : array of shape (n,), optional
        Classes, for the mAP and for colours.
    title : str
    views : pair of str, default=("image", "text")
        What the views are called.
    split : pair of arrays of int, optional
        Rows to train on and rows to hold out; by default a random quarter is held out.
    names : sequence of n str, optional
    pictures : array of shape (n, h, w, 3), uint8, or callable from indices to one, optional
        With names and pictures the page shows what finds what.
    queries : (list of m str, array of shape (m, q)), optional
        Typed texts and their features, to show the held-out pictures they find.
    notes : sequence of str, optional
        Sentences for the end of the page.
    cv : int, default=5
        The number of folds of the training items, in random order.
    random_state : int, default=0
        Seed of the split, the folds, samples, permutations and bootstrap.
    quick : bool, default=False
        Leave out the comparison of models and the jackknife, and permute less often.
    max_items : int, default=20000
        The most items that are looked at, a quarter of them (at most 5000) held out.
    command : str, optional
        The command line that made the page, shown on it.
    progress : callable from str, optional
        Told what is being done.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a view is no matrix of real numbers, holds infinity or nothing but NaN, lengths
        differ, or there are fewer than 20 items.

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
    train, test, in_words = _split(n, split, random_state)
    rows, train, test, limits = _bounded(n, train, test, max_items, random_state)
    say("looking the data over")
    with clock("data"):
        given = take_given(blocks[views[0]], blocks[views[1]], rows, views)
        at_train, at_test = np.searchsorted(rows, train), np.searchsorted(rows, test)
        known = None if labels is None else labels[rows]
        summary, warned, looked = look_over(given, rows, views, known, len(train))
        ready = [
            usable(a, at_train, name, random_state)
            for a, name in zip(given.views, views, strict=True)
        ]
        (X, _), (Y, _) = ready
        limits += [said for _, said in ready if said]
        if looked < len(rows):
            limits.append(f"The data were looked over on {looked:,} rows, spread evenly.")
    with _collected() as remarks:
        folds = KFold(cv, shuffle=True, random_state=random_state)
        say(f"{len(train)} items to train on, {len(test)} held out; choosing the shrinkage")
        xt, yt, xe, ye = X[at_train], Y[at_train], X[at_test], Y[at_test]
        with clock("choosing"):
            pairs, scores = _search_shrinkage(xt, yt, folds)
            best = tuple(pairs[int(np.nanargmax(_finite_mean(scores)))])
            say(f"shrinkage {best[0]:g} and {best[1]:g}; comparing similarities")
            cv_mrr = _compare_kinds(xt, yt, best, folds)
            kind = max(KINDS, key=lambda k: cv_mrr[k])
        say(f"{similarity_name(kind)}; judging on the held-out items")
        with clock("judging"):
            model = CCA(shrinkage=best).fit(xt, yt)
            held_labels = None if labels is None else labels[test]
            table = _table(model, cv_mrr, xe, ye, held_labels, views)
            u, v = (to_numpy(a) for a in model.embed(xe, ye, kind=kind))
            found = retrieval(u, v, held_labels, _directions(views), random_state)
            variates = tuple(to_numpy(a) for a in model.transform(xe, ye))
            held_out = column_correlations(*variates)
            trained = to_numpy(model.correlations_)
        say("tests, intervals and doubtful pairs")
        with clock("tests and intervals"):
            tested = evidence(X, Y, at_train, trained, held_out, len(test), random_state, quick)
        with clock("doubtful pairs"):
            doubtful = mismatches(X, Y, best, folds, random_state)
            doubtful.table[["row", "best_row"]] = rows[doubtful.table[["row", "best_row"]]]
        models = None
        if not quick:
            say("comparing models")
            with clock("comparing models"):
                models = compare_models(X, Y, known, at_train, at_test, best, random_state)
    galleries = _galleries(model, kind, xe, ye, test, names, pictures, queries)
    return Report(
        title=title, views=views, model=model, kind=kind, table=table, retrieval=found,
        evidence=tested, mismatches=doubtful, models=models, summary=summary, warned=warned,
        shrinkages=pairs, shrinkage_scores=scores, train_correlations=trained,
        held_out_correlations=held_out, variates=(variates[0], variates[1]),
        labels=held_labels, names=names, train=train, test=test,
        shapes=(given.sizes[0][0], given.sizes[1][0]), split=in_words, seconds=clock.total(),
        timings=clock.parts, galleries=galleries, limits=limits,
        settings={
            "seed": f"{random_state}", "folds": f"{cv}, in random order",
            "items looked at, at most": f"{max_items:,}", "quick": "yes" if quick else "no",
            "command": command,
        },
        reproduce=_reproduction(best, kind, split is not None, bool(limits), random_state),
        remarks=tuple(remarks), notes=notes,
    )  # fmt: skip


def build_emoji(*, quick: bool = True, progress: Callable[[str], None] | None = None) -> Report:
    """`build` on the emoji set that ships with the package, with its own split.

    Parameters
    ----------
    quick : bool, default=True
        As in `build`.
    progress : callable from str, optional
        Told what is being done.

    Returns
    -------
    Report
        Labels are the 9 groups.
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
def _collected() -> Iterator[list[str]]:
    """What models warn of, each sentence once: the page tells it, not the console."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield remarks
    for told in caught:
        if not issubclass(told.category, UserWarning):
            warnings.warn_explicit(told.message, told.category, told.filename, told.lineno)
            continue
        sentence = " ".join(str(told.message).split())
        if sentence not in remarks:
            remarks.append(sentence)


class _Clock:
    """Seconds by part."""

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
    """Both views as matrices of equally many rows, not yet read where they lie on a disk."""
    if max_items != int(max_items) or max_items < MINIMUM:
        raise ValueError(f"max_items={max_items!r} must be a whole number, at least {MINIMUM}")
    if views[0] == views[1]:
        raise ValueError(f"views={views!r} must be two different names")
    blocks = {
        name: a if is_lazy(a) else check_matrix(a, name, ensure_finite="allow-nan")
        for name, a in zip(views, (images, texts), strict=True)
    }
    X, Y = blocks.values()
    if X.shape[0] != Y.shape[0]:
        raise ValueError(
            f"{views[0]} has shape {tuple(X.shape)} and {views[1]} has shape {tuple(Y.shape)}: "
            "row i of both is one item, so they need the same number of rows"
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
    """The rows that are used, in order, and of these the training and the held-out ones."""
    rng = np.random.default_rng(seed)
    total = len(train) + len(test)
    most = [max_items - max_items // 4, min(max_items // 4, HELD_OUT)]
    if total <= max_items and len(test) <= HELD_OUT:
        return np.arange(n), train, test, []
    train, test = (
        np.sort(rng.permutation(rows)[:m]) for rows, m in zip((train, test), most, strict=True)
    )
    said = (
        f"Of {total:,} items {len(train) + len(test):,} were looked at, drawn at random "
        f"(seed {seed}): {len(train):,} to train on, {len(test):,} held out."
    )
    return np.union1d(train, test), train, test, [said]


def _reproduction(shrinkage: Any, kind: Kind, fixed: bool, limited: bool, seed: int) -> str:
    """Python that fits and judges the same model."""
    split = (
        "# train, test: the rows of the split that was given"
        if fixed
        else f"order = np.random.default_rng({seed}).permutation(len(X))\n"
        "test, train = np.split(order, [round(len(X) / 4)])"
    )
    limit = "# X, Y: the rows and columns that this page says it used\n" if limited else ""
    return (
        "import numpy as np\nfrom cmstats import CCA, permutation_test, retrieval_report\n\n"
        f"{limit}{split}\n"
        f"cca = CCA(shrinkage=({shrinkage[0]:g}, {shrinkage[1]:g})).fit(X[train], Y[train])\n"
        f'u, v = cca.embed(X[test], Y[test], kind="{kind}")\n'
        "print(retrieval_report(u, v))\n"
        f'print(permutation_test(X[train], Y[train], shrinkage="auto", random_state={seed}))'
    )


def _check_labels(labels: Any, n: int) -> npt.NDArray[Any] | None:
    if labels is None:
        return None
    labels = to_numpy(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (n,):
        raise ValueError(f"labels has shape {labels.shape}, expected ({n},): one for each item")
    return np.asarray(labels)


def _split(n: int, split: tuple[Any, Any] | None, seed: int) -> tuple[Indices, Indices, str]:
    if split is not None:
        train, test = (np.asarray(rows, dtype=np.intp) for rows in split)
        return train, test, "a fixed split"
    order = np.random.default_rng(seed).permutation(n)
    held = round(n / 4)
    return np.sort(order[held:]), np.sort(order[:held]), f"a random quarter, seed {seed}"


def _search_shrinkage(
    X: Any, Y: Any, folds: KFold
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Pairs and their scores in each fold: the diagonal, then the neighbours of its best."""
    path = list(SHRINKAGES)
    pairs = [(s, s) for s in path]
    scores = _cv_scores(X, Y, pairs, folds)
    best = int(np.nanargmax(_finite_mean(scores)))
    near = [path[i] for i in (best - 1, best + 1) if 0 <= i < len(path)]
    around = [(s, path[best]) for s in near] + [(path[best], s) for s in near]
    scores = np.concatenate([scores, _cv_scores(X, Y, around, folds)])
    return np.array(pairs + around), scores


def _cv_scores(
    X: Any, Y: Any, pairs: list[tuple[float, float]], folds: KFold
) -> npt.NDArray[np.float64]:
    found = MomentsSearchCV(CCA(), {"shrinkage": pairs}, cv=folds, refit=False).fit(X, Y)
    columns = [found.cv_results_[f"split{k}_test_score"] for k in range(found.n_splits_)]
    return np.stack(columns, axis=1)


def _finite_mean(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the folds; -1, the worst there is, where a fold has none."""
    mean = scores.mean(axis=1)
    return np.asarray(np.where(np.isnan(mean), -1.0, mean))


def _compare_kinds(X: Any, Y: Any, shrinkage: Any, folds: KFold) -> dict[Kind, float]:
    """The mean reciprocal rank of each similarity on the held-out folds."""
    found: dict[Kind, list[float]] = {kind: [] for kind in KINDS}
    for train, test in folds.split(np.empty(X.shape[0])):
        model = CCA(shrinkage=shrinkage).fit(take_rows(X, train), take_rows(Y, train))
        x, y = take_rows(X, test[:VALIDATION]), take_rows(Y, test[:VALIDATION])
        for kind in KINDS:
            judged = retrieval_report(*model.embed(x, y, kind=kind), ks=[])
            found[kind].append(cell(judged, "mean", "MRR"))
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def _directions(views: tuple[str, str]) -> tuple[str, str]:
    return f"{views[0]} -> {views[1]}", f"{views[1]} -> {views[0]}"


def _table(
    model: CCA, cv_mrr: dict[Kind, float], X: Any, Y: Any, labels: Any, views: tuple[str, str]
) -> pd.DataFrame:
    """One row a method, judged on the held-out items."""
    judged = {}
    for kind in sorted(KINDS, key=lambda k: -cv_mrr[k]):
        vectors = model.embed(X, Y, kind=kind)
        judged[similarity_name(kind)] = (
            cv_mrr[kind],
            retrieval_report(*vectors, labels=labels, ks=KS),
        )
    if X.shape[1] == Y.shape[1]:
        raw = retrieval_report(_unit(X), _unit(Y), labels=labels, ks=KS)
        judged["raw cosine"] = (np.nan, raw)
    chance = retrieval_chance(X.shape[0], labels=labels, ks=KS)
    judged["chance"] = (np.nan, chance)
    rows = {
        name: {("training CV", "MRR"): cv}
        | {
            (direction, metric): cell(report, row, metric)
            for direction, row in zip(_directions(views), ("x -> y", "y -> x"), strict=True)
            for metric in METRICS
        }
        for name, (cv, report) in judged.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    columns: Any = table.columns.tolist()
    table.columns = pd.MultiIndex.from_tuples(columns)
    return table


def _unit(a: Any) -> Any:
    """Rows of unit length, for the cosine; a row of zeros stays."""
    a = np.asarray(a.todense()) if hasattr(a, "todense") else to_numpy(a)
    a = a.astype(np.float64 if a.dtype.itemsize > 4 else np.float32)
    norms = np.linalg.norm(a, axis=1, keepdims=True)
    return a / np.where(norms > 0, norms, 1)


# ---------------------------------------------------------------------------- galleries
def _galleries(
    model: CCA,
    kind: Kind,
    X: Any,
    Y: Any,
    test: Indices,
    names: Sequence[str] | None,
    pictures: Any,
    queries: tuple[Sequence[str], Any] | None,
) -> list[Gallery]:
    if names is None or pictures is None:
        return []
    u, v = model.embed(X, Y, kind=kind)
    shown = np.asarray(pictures(test) if callable(pictures) else pictures[test])
    words = [str(names[i]) for i in test]
    image = [Thing(word, pixels) for word, pixels in zip(words, shown, strict=True)]
    text = [Thing(word) for word in words]
    galleries = []
    if queries is not None:
        asked = [Thing(str(query)) for query in queries[0]]
        typed = model.embed(y=queries[1], kind=kind)
        note = "The first pictures among the held-out items for words typed by a person."
        galleries.append(Gallery("Typed words", note, _found(typed, u, asked, image, None)))
    some = np.unique(np.linspace(0, len(test) - 1, 9).round().astype(np.intp))[:-1]
    note = "A framed result is the partner. The queries are spread evenly over the held-out items."
    for title, Q, C, asked, found in (
        ("Texts find pictures", v, u, text, image),
        ("Pictures find texts", u, v, image, text),
    ):
        rows = _found(Q[some], C, [asked[i] for i in some], found, some)
        galleries.append(Gallery(title, note, rows))
    return galleries


def _found(
    Q: Any, C: Any, asked: list[Thing], candidates: list[Thing], partners: Any, k: int = 8
) -> list[tuple[Thing, list[Thing]]]:
    indices = to_numpy(search(Q, C, k)[0])
    rows = []
    for i, query in enumerate(asked):
        things = [candidates[j] for j in indices[i]]
        if partners is not None:
            hits = indices[i] == partners[i]
            things = [Thing(t.text, t.pixels, bool(h)) for t, h in zip(things, hits, strict=True)]
        rows.append((query, things))
    return rows
