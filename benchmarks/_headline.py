"""The tables of speed and quality in the README, from the saved measurements."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._measure import Rows, number, saved

PAGE = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- measured: written by python -m benchmarks -->\n", "<!-- /measured -->\n"

SPEED = (
    ("cca", "scikit-learn CCA / cmstats CCA, ", "`CCA`", "scikit-learn CCA"),
    ("cca", "cca-zoo RidgeCCA / cmstats CCA, ", "`CCA`", "cca-zoo RidgeCCA"),
    (
        "cca",
        "cca-zoo GridSearchCV / MomentsSearchCV, ",
        "`MomentsSearchCV`, 10 shrinkages, 5 folds",
        "cca-zoo GridSearchCV",
    ),
    ("kernel_cca", "cca-zoo KCCA / KernelCCA exact, ", "`KernelCCA`, exact", "cca-zoo KCCA"),
    (
        "multitask",
        "scikit-learn RidgeCV / MultitaskRegressor, ",
        "`MultitaskRegressor`",
        "scikit-learn RidgeCV",
    ),
    (
        "autoencoder",
        "scikit-learn PCA / LinearAutoencoder, ",
        "`LinearAutoencoder`",
        "scikit-learn PCA",
    ),
    ("mixture", "EM ", "mixture of Gaussians", "scikit-learn GaussianMixture"),
    ("kernels", "normal log-density ", "normal log-density", "SciPy multivariate_normal"),
)
"""Suite, prefix of the row's name (the rest is the size), our name and the peer's."""

QUALITY = (
    ("emoji", "R@10", "emoji, R@10"),
    ("fashion", "R@10", "fashion, R@10"),
    ("wikipedia", "mAP", "Wikipedia, mAP"),
    ("MNIST halves", "R@10", "MNIST halves, R@10"),
    ("MNIST halves", "total_correlation", "the same, sum of 50 correlations"),
)
LABELLED = (
    ("SCM of Rasiwasia", "published: SCM, Rasiwasia et al. 2010"),
    ("JFSSL", "JFSSL, Wang et al. 2016, as remembered"),
    ("deep: a network", "a network for each view"),
    ("deep: SCM", "logistic regression on DeepCCA"),
    ("chi2 and rbf maps, gamma chosen", "`SemanticMatching` on kernel maps"),
)
"""Prefix of the row's name, and its name in the table."""

CLASSICAL = (
    "CrossModalRetriever",
    "CCA",
    "KernelCCA",
    "ConditionalGaussian",
    "LinearAutoencoder(cross)",
)
"""The models that were fitted to the same pairs as the deep models, without labels."""

DEEP = ("DeepCCA", "ContrastiveAligner, linear", "ContrastiveAligner, MLP")


def rewrite() -> None:
    """Replace the tables between the marks of the README."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{PAGE} lacks the marks {BEGIN.strip()} and {END.strip()}")
    PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines()) + "\n\n" + END + after)


def lines() -> Iterator[str]:
    """The lines of both tables; rows without results are left out."""
    yield from _speed()
    compared = saved("comparison")
    if compared:
        yield ""
        yield from _quality(compared)
    few = saved("few_pairs")
    if few:
        yield ""
        yield from _few(few)
    labelled = saved("semantic")
    if labelled:
        yield ""
        yield from _with_labels(labelled)


def _speed() -> Iterator[str]:
    yield "| | size | peer | times faster |"
    yield "|---|---|---|---|"
    for suite, start, ours, peer in SPEED:
        for name, row in _first(saved(suite), start):
            size = name.removeprefix(start).removesuffix(" / bare product")
            size = size.removesuffix(" / scikit-learn")
            yield f"| {ours} | {size} | {peer} | {number('times', row['times_faster'])} |"


def _first(rows: Rows, start: str) -> list[tuple[str, dict[str, Any]]]:
    """The first row with this prefix, or None."""
    return [(name, row) for name, row in rows.items() if name.startswith(start)][:1]


def _quality(compared: Rows) -> Iterator[str]:
    sets = [s for s in QUALITY if f"{s[0]}, CCA" in compared]
    yield "| held-out quality (seconds to fit) | " + " | ".join(s[2] for s in sets) + " |"
    yield "|---|" + "---|" * len(sets)
    names = [n.removeprefix("emoji, ") for n in compared if n.startswith("emoji, ")]
    for model in names:
        cells = [_cell(compared.get(f"{data}, {model}", {}), metric) for data, metric, _ in sets]
        if any(cells):
            yield f"| {model} | " + " | ".join(cell or "-" for cell in cells) + " |"
    yield ""
    yield from _verdict(compared, sets)


def _cell(row: dict[str, Any], metric: str) -> str:
    if metric not in row:
        return ""
    return f"{number(metric, row[metric])} ({number('short seconds', row['fit_seconds'])} s)"


def _verdict(compared: Rows, sets: list[tuple[str, str, str]]) -> Iterator[str]:
    """The better side on each data set."""
    for data, metric, title in sets:
        rows = {
            name.removeprefix(f"{data}, "): row[metric]
            for name, row in compared.items()
            if name.startswith(f"{data}, ") and metric in row
        }
        deep = {name: value for name, value in rows.items() if name in DEEP}
        classical = {name: rows[name] for name in CLASSICAL if name in rows}
        if not deep or not classical:
            continue
        ours, theirs = max(classical, key=classical.__getitem__), max(deep, key=deep.__getitem__)
        side = "classical" if classical[ours] >= deep[theirs] else "deep"
        yield (
            f"- {title}: {side} is ahead ({ours} {number(metric, classical[ours])}, "
            f"{theirs} {number(metric, deep[theirs])})."
        )


FEW = (
    ("openclipart", 100),
    ("openclipart", 300),
    ("openclipart", 1000),
    ("emoji", 300),
    ("fashion", 300),
    ("MNIST halves", 300),
    ("aligned, CLIP", 80),
    ("aligned, ConVIRT", 80),
    ("aligned, CLIP", 400),
    ("aligned, ConVIRT", 400),
)
"""Sets and numbers of pairs of the table of few pairs."""


def _few(rows: Rows) -> Iterator[str]:
    """The mean reciprocal rank by method and number of pairs."""
    places = [f"{data}, {n} pairs" for data, n in FEW]
    places = [p for p in places if f"{p}: CrossModalRetriever" in rows]
    titles = [p.removeprefix("aligned, ").replace(", ", ": ") for p in places]
    yield "| few pairs, MRR | " + " | ".join(titles) + " |"
    yield "|---|" + "---|" * len(places)
    for method in dict.fromkeys(name.rsplit(": ", 1)[1] for name in rows):
        found = [rows.get(f"{place}: {method}", {}) for place in places]
        if not any("MRR" in row for row in found):
            continue
        cells = [
            f"{number('MRR', row['MRR'])} +- {number('MRR', row['MRR_standard_error'])}"
            if "MRR" in row
            else "-"
            for row in found
        ]
        yield f"| {method} | " + " | ".join(cells) + " |"
    yield ""
    yield from _few_verdict(rows)


def _few_verdict(rows: Rows) -> Iterator[str]:
    """How often `CrossModalRetriever` is ahead of every other method, and what is elsewhere."""
    found: dict[str, dict[str, float]] = {}
    for name, row in rows.items():
        place, method = name.rsplit(": ", 1)
        if "MRR" in row:
            found.setdefault(place.removeprefix("aligned, "), {})[method] = row["MRR"]
    compared, elsewhere = 0, []
    for place, values in found.items():
        ours = values.pop("CrossModalRetriever", None)
        if ours is None or len(values) < 2:
            continue
        compared += 1
        best = max(values, key=values.__getitem__)
        if values[best] > ours:
            elsewhere.append(f"{place}: {best} {_three(values[best])} (it has {_three(ours)})")
    if compared:
        yield (
            f"`CrossModalRetriever` is ahead of every other method at {compared - len(elsewhere)} "
            f"of the {compared} sets and numbers of pairs that were measured. Elsewhere:"
        )
        yield ""
        yield from (f"- {one}" for one in elsewhere)


def _three(value: float) -> str:
    return number("MRR", value)


def _with_labels(rows: Rows) -> Iterator[str]:
    yield "| Wikipedia with labels, mAP | image query | text query |"
    yield "|---|---|---|"
    for start, title in LABELLED:
        for _, row in _first(rows, start):
            image, text = (number("mAP", row[f"{q}_query_mAP"]) for q in ("image", "text"))
            found = f"{image} | {text}"
            yield f"| {title} | {found} |"
