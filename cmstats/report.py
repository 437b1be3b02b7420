"""One page about two matrices of features: how they correlate, and how well they retrieve.

`build` chooses the shrinkage and the similarity on the training items alone, and judges on the
held-out ones; the result prints as a table and writes itself as one HTML file that needs
nothing else.
"""

from __future__ import annotations

import base64
import io
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.model_selection import KFold

from cmstats._array import check_matrix, take_rows, to_numpy
from cmstats._shrinkage import SHRINKAGES
from cmstats.cca import CCA, Kind
from cmstats.datasets import load_emoji
from cmstats.metrics import retrieval_chance, retrieval_report, search
from cmstats.model_selection import MomentsSearchCV
from cmstats.plotting import (
    CorrelationDisplay,
    JointEmbeddingDisplay,
    ShrinkagePathDisplay,
    column_correlations,
)

__all__ = ["Report", "build", "build_emoji", "write_new"]

Indices = npt.NDArray[np.intp]

KINDS: tuple[Kind, ...] = get_args(Kind)
KS = (1, 5, 10)
METRICS = ("R@1", "R@5", "R@10", "median_rank", "MRR", "mAP")
MINIMUM = 20  # items: 15 to train on, in 5 folds of 3
VALIDATION = 2000  # items of a fold on which the similarities are compared: enough, and quick

EMOJI_QUERIES = (
    "red fruit",
    "sad face",
    "train",
    "heart",
    "time on a clock",
    "arrow pointing left",
    "cat",
)


# ------------------------------------------------------------------------------- result
@dataclass
class Report:
    """What `build` found.

    Attributes
    ----------
    model : CCA
        Fitted to the training items.
    kind : str
        The similarity chosen on the training items.
    table : DataFrame
        One row a method: the similarities, "raw cosine" where the widths match, "chance".
        Columns ``("training CV", "MRR")`` and, held out, ``(direction, metric)`` with the
        metrics of `retrieval_report`.
    shrinkages : array of shape (m, 2)
        The pairs tried, and `shrinkage_scores` of shape (m, n_folds): their mean held-out
        correlations in cross-validation.
    train_correlations, held_out_correlations : arrays of shape (k,)
    train, test : arrays of int
        Rows of the training and of the held-out items.
    shapes : pair of tuple of int
        Those of the two views.
    split : str
        How the items were split, in words.
    seconds : float
        What it took to choose, fit and judge.
    """

    title: str
    views: tuple[str, str]
    model: CCA
    kind: Kind
    table: pd.DataFrame
    shrinkages: npt.NDArray[np.float64]
    shrinkage_scores: npt.NDArray[np.float64]
    train_correlations: npt.NDArray[np.float64]
    held_out_correlations: npt.NDArray[np.float64]
    variates: tuple[npt.NDArray[Any], npt.NDArray[Any]] = field(repr=False)
    labels: npt.NDArray[Any] | None = field(repr=False)
    train: Indices = field(repr=False)
    test: Indices = field(repr=False)
    shapes: tuple[tuple[int, int], tuple[int, int]]
    split: str
    seconds: float
    galleries: list[Gallery] = field(repr=False)
    notes: Sequence[str] = ()

    def best(self, metric: str, direction: str) -> float:
        """A held-out metric of the chosen similarity, for one direction."""
        return _cell(self.table, _name(self.kind), direction, metric)

    def to_text(self) -> str:
        """The table, for a terminal of 96 columns.

        Returns
        -------
        str
            Medians are ranks, 1 = best; the others are shares in [0, 1].
        """
        shown = ("R@1", "R@10", "median_rank", "mAP")
        sx, sy = self.model.shrinkage_
        rows = [
            f"{self.title}: {len(self.train)} items to train on, {len(self.test)} held out "
            f"({self.split})",
            f"shrinkage {sx:g} ({self.views[0]}), {sy:g} ({self.views[1]}); first held-out "
            "correlations " + " ".join(f"{r:.2f}" for r in self.held_out_correlations[:5]),
            "",
            " " * 32 + "".join(f"{d:^32}" for d in self.directions),
            f"{'similarity':24}{'CV MRR':>8}"
            + "".join(f"{m.replace('_rank', ''):>8}" for _ in range(2) for m in shown),
        ]
        for name, values in zip(self.table.index, self.table.to_dict("records"), strict=True):
            cells = [values["training CV", "MRR"]]
            cells += [values[d, m] for d in self.directions for m in shown]
            formats = [".3f"] + [".1f" if m == "median_rank" else ".3f" for m in shown] * 2
            mark = " *" if name == _name(self.kind) else ""
            rows.append(
                f"{name + mark:24}"
                + "".join(
                    f"{'' if np.isnan(c) else format(c, f):>8}"
                    for c, f in zip(cells, formats, strict=True)
                )
            )
        labelled = "" if self.labels is None else "; mAP: items of the same label are relevant"
        rows.append(f"* chosen by cross-validation on the training items{labelled}")
        return "\n".join(rows)

    @property
    def directions(self) -> tuple[str, str]:
        """The names of the two directions of retrieval."""
        return _directions(self.views)

    def to_html(self) -> str:
        """The page: one HTML document with its pictures inside, no script, no network.

        Raises
        ------
        ImportError
            If Jinja2, Matplotlib or Pillow is missing (the extra ``report``).
        """
        return _render(self)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the page, whole or not at all.

        Parameters
        ----------
        path : path
        overwrite : bool, default=False
            Replace a file that is there.

        Returns
        -------
        Path

        Raises
        ------
        FileExistsError
            If the file is there and `overwrite` is false.
        ImportError
            As in `to_html`.
        """
        return write_new(path, self.to_html(), overwrite=overwrite)


@dataclass(frozen=True)
class Gallery:
    """Queries and what they find; each thing is (text, picture or None, whether a partner)."""

    title: str
    note: str
    rows: list[tuple[Thing, list[Thing]]]


@dataclass(frozen=True)
class Thing:
    """A text or a picture in a gallery."""

    text: str
    pixels: Any = None
    hit: bool = False

    @property
    def source(self) -> str:
        """The picture as a data address."""
        return "" if self.pixels is None else _webp(self.pixels)


def write_new(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> Path:
    """Write a text file, whole or not at all, and by default only where there is none.

    Raises
    ------
    FileExistsError
        If the file is there and `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another name, or say to overwrite it")
    # Not tempfile: its files are readable by their owner only, whatever the umask.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


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
    progress: Callable[[str], None] | None = None,
) -> Report:
    r"""Choose, fit and judge a CCA of two views.

    The shrinkages are those with the best mean canonical correlation
    :math:`\frac1k\sum_i \mathrm{corr}(Xa_i, Yb_i)` on the held-out folds of the training items
    (`MomentsSearchCV`), first one for both views, then one for each around it; the
    similarity is the one with the best mean reciprocal rank on the same folds. Both are then
    judged once on the held-out items.

    Parameters
    ----------
    images, texts : array-likes of shapes (n, p), (n, q)
        Features of the two views; row i of both is one item.
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
        Seed of the split and of the folds.
    progress : callable from str, optional
        Told what is being done.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        If a view is no matrix of finite numbers, lengths differ, or there are fewer than 20
        items.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.report import build
    >>> rng = np.random.default_rng(0)
    >>> Z = rng.normal(size=(200, 3))
    >>> report = build(Z + rng.normal(size=Z.shape), Z @ rng.normal(size=(3, 4)))
    >>> report.table.loc["chance", ("image -> text", "R@10")].round(3)
    np.float64(0.2)
    """
    begin = time.perf_counter()
    say = progress or (lambda _: None)
    X, Y = check_matrix(images, views[0]), check_matrix(texts, views[1])
    n = _check_rows(X, Y, views)
    labels = _check_labels(labels, n)
    train, test, in_words = _split(n, split, random_state)
    xt, yt = take_rows(X, train), take_rows(Y, train)
    folds = KFold(cv, shuffle=True, random_state=random_state)
    say(f"{len(train)} items to train on, {len(test)} held out; choosing the shrinkage")
    pairs, scores = _search_shrinkage(xt, yt, folds)
    best = tuple(pairs[int(np.nanargmax(_finite_mean(scores)))])
    say(f"shrinkage {best[0]:g} and {best[1]:g}; comparing similarities")
    cv_mrr = _compare_kinds(xt, yt, best, folds)
    kind = max(KINDS, key=lambda k: cv_mrr[k])
    model = CCA(shrinkage=best).fit(xt, yt)
    say(f"{_name(kind)}; judging on the held-out items")
    xe, ye = take_rows(X, test), take_rows(Y, test)
    held_labels = None if labels is None else labels[test]
    table = _table(model, cv_mrr, xe, ye, held_labels, views)
    variates = tuple(to_numpy(a) for a in model.transform(xe, ye))
    held_out = column_correlations(*variates)
    galleries = _galleries(model, kind, xe, ye, test, names, pictures, queries)
    return Report(
        title=title, views=views, model=model, kind=kind, table=table, shrinkages=pairs,
        shrinkage_scores=scores, train_correlations=to_numpy(model.correlations_),
        held_out_correlations=held_out, variates=(variates[0], variates[1]),
        labels=held_labels, train=train, test=test, shapes=(tuple(X.shape), tuple(Y.shape)),
        split=in_words, seconds=time.perf_counter() - begin, galleries=galleries, notes=notes,
    )  # fmt: skip


def build_emoji(*, progress: Callable[[str], None] | None = None) -> Report:
    """`build` on the emoji set that ships with the package, with its own split.

    Parameters
    ----------
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
            "The licences ship with cmstats, in cmstats/data/LICENSES.",
        ),
        progress=progress,
    )


def _check_rows(X: Any, Y: Any, views: tuple[str, str]) -> int:
    n = int(X.shape[0])
    if Y.shape[0] != n:
        raise ValueError(
            f"{views[0]} has shape {tuple(X.shape)} and {views[1]} has shape {tuple(Y.shape)}: "
            "row i of both is one item, so they need the same number of rows"
        )
    if n < MINIMUM:
        raise ValueError(
            f"a report needs at least {MINIMUM} items, a quarter of them to hold out, got {n}"
        )
    return n


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
            found[kind].append(_cell(judged, "mean", "MRR"))
    return {kind: float(np.mean(values)) for kind, values in found.items()}


def _directions(views: tuple[str, str]) -> tuple[str, str]:
    return f"{views[0]} -> {views[1]}", f"{views[1]} -> {views[0]}"


def _name(kind: str) -> str:
    return "CCA, " + kind.replace("_", " ")


def _table(
    model: CCA, cv_mrr: dict[Kind, float], X: Any, Y: Any, labels: Any, views: tuple[str, str]
) -> pd.DataFrame:
    """One row a method, judged on the held-out items."""
    judged = {}
    for kind in sorted(KINDS, key=lambda k: -cv_mrr[k]):
        vectors = model.embed(X, Y, kind=kind)
        judged[_name(kind)] = (
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
            (direction, metric): _cell(report, row, metric)
            for direction, row in zip(_directions(views), ("x -> y", "y -> x"), strict=True)
            for metric in METRICS
        }
        for name, (cv, report) in judged.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    columns: Any = table.columns.tolist()
    table.columns = pd.MultiIndex.from_tuples(columns)
    return table


def _cell(table: pd.DataFrame, row: str, *column: str) -> float:
    """One number of a table; pandas' types allow for anything there."""
    value: Any = table.at[row, column[0] if len(column) == 1 else column]
    return float(value)


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


# --------------------------------------------------------------------------------- page
def _webp(pixels: Any) -> str:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "pictures need Pillow: install it with `pip install cmstats[report]`"
        ) from error
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(out, "WEBP", quality=80)
    return _data_address(out.getvalue(), "webp")


def _data_address(data: bytes, kind: Literal["png", "webp"]) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _figure(draw: Callable[[Any], object], size: tuple[float, float]) -> str:
    """A drawing as a data address. Not through pyplot: a notebook would show it a second time."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "the pictures of a report need Matplotlib: install it with "
            "`pip install cmstats[report]`"
        ) from error
    figure = Figure(figsize=size, layout="constrained")
    draw(figure.subplots())
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160)
    return _data_address(out.getvalue(), "png")


def _figures(report: Report) -> list[dict[str, str]]:
    """The page's plots, each with a caption and a description for those who cannot see it."""
    held_out, train = report.held_out_correlations, report.train_correlations
    sx, sy = report.model.shrinkage_
    shown = min(len(train), 100)
    correlations = CorrelationDisplay(held_out, train=train, n_held_out=len(report.test))
    figures = [
        {
            "source": _figure(lambda ax: correlations.plot(ax, max_components=shown), (6.4, 3.9)),
            "title": "Canonical correlations",
            "caption": "Correlations of the paired variates. What training shows and held-out "
            "items do not is chance that was fitted."
            + (f" The first {shown} of {len(train)}." if shown < len(train) else ""),
            "alt": f"Canonical correlations; held out they start at {held_out[0]:.2f}, in "
            f"training at {train[0]:.2f}.",
        }
    ]
    if np.isfinite(report.shrinkage_scores).all(axis=1).any():
        path = ShrinkagePathDisplay(report.shrinkages, report.shrinkage_scores)
        figures.append(
            {
                "source": _figure(path.plot, (6.4, 3.9)),
                "title": "How much shrinkage",
                "caption": "Chosen by cross-validation on the training items: "
                f"{sx:g} for {report.views[0]} (x), {sy:g} for {report.views[1]} (y).",
                "alt": f"Cross-validated score along the shrinkage, best at {sx:g} and {sy:g}.",
            }
        )
    U, V = report.variates
    for a, b in ((0, 1), (2, 3)):
        if b >= U.shape[1]:
            break
        display = JointEmbeddingDisplay(
            U[:, [a, b]], V[:, [a, b]], labels=report.labels, names=report.views,
            axis_names=(f"variate {a + 1} (standard deviations)",
                        f"variate {b + 1} (standard deviations)"),
        )  # fmt: skip
        figures.append(
            {
                "source": _figure(display.plot, (6.4, 6.0)),
                "title": f"Both views on components {a + 1} and {b + 1}",
                "caption": "Held-out items; partners should lie close together.",
                "alt": f"Scatter of both views on components {a + 1} and {b + 1}.",
            }
        )
    return figures


def _render(report: Report) -> str:
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(
            "the HTML page needs Jinja2: install it with `pip install cmstats[report]`"
        ) from error
    from cmstats import __version__

    chance = [_cell(report.table, "chance", d, "R@10") for d in report.directions]
    template = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).from_string(files("cmstats").joinpath("data/report.html").read_text(encoding="utf-8"))
    with warnings.catch_warnings():
        # A label in a script that Matplotlib's font lacks is drawn as a box, which is seen.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figures = _figures(report)
    return str(
        template.render(
            report=report,
            figures=figures,
            chance=sum(chance) / 2,
            metrics=METRICS,
            chosen=_name(report.kind),
            version=__version__,
            isnan=np.isnan,
        )
    )
