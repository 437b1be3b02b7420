"""What a report holds, its text for a terminal, and how its page is written."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmstats.models.cca import CCA, Kind
from cmstats.report.cells import cell, data_address, similarity_name
from cmstats.report.checks import Warned
from cmstats.report.evidence import Evidence, Mismatches, Retrieval
from cmstats.report.models import Models
from cmstats.report.page import render

__all__ = ["Gallery", "Indices", "Report", "Thing", "write_new"]

Indices = npt.NDArray[np.intp]


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
    retrieval : Retrieval
        The chosen similarity's ranks and 95 % intervals.
    evidence : Evidence
        Correlations with their tests and intervals; ``evidence.supported`` counts components.
    mismatches : Mismatches
        The pairs that fit worst.
    models : Models or None
        The comparison, unless `quick`.
    summary : DataFrame
        One row a view: shape, type, memory, rank and so on.
    warned : list of Warned
        What to look at in the data, each with what to do.
    shrinkages : array of shape (m, 2)
        The pairs tried, and `shrinkage_scores` of shape (m, n_folds): their mean held-out
        correlations in cross-validation.
    train_correlations, held_out_correlations : arrays of shape (k,)
    train, test : arrays of int
        Rows (of those given) of the training and of the held-out items.
    shapes : pair of tuple of int
        Those of the two views, as given.
    split : str
        How the items were split, in words.
    seconds : float
        What it took, and `timings` by part.
    limits : list of str
        Where rows or columns were left out to bound the time.
    reproduce : str
        Lines of Python that fit and judge the same model.
    remarks : tuple of str
        What the models warned of on the way, each once.
    """

    title: str
    views: tuple[str, str]
    model: CCA
    kind: Kind
    table: pd.DataFrame
    retrieval: Retrieval = field(repr=False)
    evidence: Evidence = field(repr=False)
    mismatches: Mismatches = field(repr=False)
    models: Models | None = field(repr=False)
    summary: pd.DataFrame = field(repr=False)
    warned: list[Warned] = field(repr=False)
    shrinkages: npt.NDArray[np.float64]
    shrinkage_scores: npt.NDArray[np.float64]
    train_correlations: npt.NDArray[np.float64]
    held_out_correlations: npt.NDArray[np.float64]
    variates: tuple[npt.NDArray[Any], npt.NDArray[Any]] = field(repr=False)
    labels: npt.NDArray[Any] | None = field(repr=False)
    names: Sequence[str] | None = field(repr=False)
    train: Indices = field(repr=False)
    test: Indices = field(repr=False)
    shapes: tuple[tuple[int, int], tuple[int, int]]
    split: str
    seconds: float
    timings: dict[str, float]
    galleries: list[Gallery] = field(repr=False)
    limits: list[str]
    settings: dict[str, str]
    reproduce: str = field(repr=False)
    remarks: tuple[str, ...] = ()
    notes: Sequence[str] = ()

    def best(self, metric: str, direction: str) -> float:
        """A held-out metric of the chosen similarity, for one direction."""
        return cell(self.table, similarity_name(self.kind), direction, metric)

    @property
    def directions(self) -> tuple[str, str]:
        """The names of the two directions of retrieval."""
        return self.retrieval.directions

    @property
    def verdict(self) -> list[str]:
        """What was found, in a few sentences."""
        return [self.evidence.sentence, self.retrieval.sentence, self.mismatches.sentence]

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
            mark = " *" if name == similarity_name(self.kind) else ""
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

    def to_html(self) -> str:
        """The page: one HTML document with its pictures inside, no script, no network.

        Raises
        ------
        ImportError
            If Jinja2, Matplotlib or Pillow is missing (the extra ``report``).
        """
        return render(self)

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


def _webp(pixels: Any) -> str:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            "pictures need Pillow: install it with `pip install cmstats[report]`"
        ) from error
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(out, "WEBP", quality=80)
    return data_address(out.getvalue(), "webp")


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
