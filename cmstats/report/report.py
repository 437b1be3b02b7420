"""A report with its outputs: text for a terminal, an HTML page, a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmstats.report.findings import Findings
from cmstats.report.page import render
from cmstats.report.tables import CHOSEN, chosen_model

__all__ = ["Report", "write_new"]


@dataclass
class Report(Findings):
    """The result of `build`.

    Attributes
    ----------
    title : str
    views : pair of str
        The names of the views.
    model : CCA
        The model of the correlations, fitted to the training items.
    retriever : CrossModalRetriever
        The model of retrieval, chosen on the training items and fitted to them; `results_` is
        the table of what was tried.
    table : DataFrame
        One row per method: "CrossModalRetriever", where the widths match "raw cosine" and
        "centred cosine", "CCA" (`model`), "chance".
        Columns ``("training CV", "MRR")`` and, held out, ``(direction, metric)`` with the
        metrics of `retrieval_report`.
    retrieval : Retrieval
        The metrics of `retriever` with 95 % intervals.
    evidence : Evidence
        Correlations with their tests and intervals; ``evidence.supported`` is the number of
        significant components.
    mismatches : Mismatches
        The pairs that fit worst.
    matches : MatchProbability
        The probability that held-out pairs belong together, among as many pairs as mismatches.
    models : Models or None
        The comparison of models, unless `quick`.
    summary : DataFrame
        One row per view: shape, type, memory, rank and so on.
    warned : list of Warned
        Findings in the data, each with advice.
    shrinkages : array of shape (m, 2)
        The pairs of shrinkages that were compared.
    shrinkage_scores : array of shape (m, n_folds)
        Their mean held-out correlations in each fold.
    train_correlations, held_out_correlations : arrays of shape (k,)
        Correlations of paired variates on the training and on the held-out items.
    variates : pair of arrays of shape (n_test, k)
        The variates of the held-out items.
    loadings : Loadings
        Of the columns of both views on the leading components, by their names in the data.
    likely_ids : list of str
        A sentence for each column that both views have.
    labels : array or None
        The classes of the held-out items.
    names : sequence of str or None
        The names of all items.
    train, test : arrays of int
        Row numbers, in the data, of the training and of the held-out items.
    shapes : pair of tuple of int
        The shapes of the two views as given.
    split : str
        A description of the split.
    seconds : float
        The total wall-clock time.
    timings : dict of str -> float
        The time of each part.
    galleries : list of Gallery
        Example queries, if there are names and pictures.
    limits : list of str
        Sentences on rows or columns that were left out to bound the time.
    settings : dict of str -> str
        The parameters of `build`.
    reproduce : str
        Lines of Python that fit and evaluate the same model.
    remarks : tuple of str
        The distinct warnings of the models.
    notes : sequence of str
        Sentences for the end of the page.
    """

    def to_text(self) -> str:
        """The table of held-out retrieval as text, for a terminal of 96 columns.

        Returns
        -------
        str
            The median is a rank, 1 = best; the other metrics are in [0, 1].
        """
        shown = ("R@1", "R@10", "median_rank", "mAP")
        sx, sy = self.model.shrinkage_
        rows = [
            f"{self.title}: {len(self.train)} items to train on, {len(self.test)} held out "
            f"({self.split})",
            f"CCA: shrinkage {sx:g} ({self.views[0]}), {sy:g} ({self.views[1]}); first held-out "
            "correlations " + " ".join(f"{r:.2f}" for r in self.held_out_correlations[:5]),
            "",
            " " * 32 + "".join(f"{d:^32}" for d in self.directions),
            f"{'retrieval by':24}{'CV MRR':>8}"
            + "".join(f"{m.replace('_rank', ''):>8}" for _ in range(2) for m in shown),
        ]
        for name, values in zip(self.table.index, self.table.to_dict("records"), strict=True):
            cells = [values["training CV", "MRR"]]
            cells += [values[d, m] for d in self.directions for m in shown]
            formats = [".3f"] + [".1f" if m == "median_rank" else ".3f" for m in shown] * 2
            mark = " *" if name == CHOSEN else ""
            rows.append(
                f"{name + mark:24}"
                + "".join(
                    f"{'' if np.isnan(c) else format(c, f):>8}"
                    for c, f in zip(cells, formats, strict=True)
                )
            )
        labelled = "" if self.labels is None else "; mAP: items of the same label are relevant"
        rows.append(f"* {chosen_model(self.retriever.chosen_)}")
        rows.append(f"  chosen by cross-validation on the training items{labelled}")
        return "\n".join(rows)

    def to_html(self) -> str:
        """One HTML document with its pictures embedded, without scripts or network access.

        Returns
        -------
        str

        Raises
        ------
        ImportError
            If Jinja2, Matplotlib or Pillow is missing (the extra ``report``).
        """
        return render(self)

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the page to a file, atomically.

        Parameters
        ----------
        path : str or path
            The file to write.
        overwrite : bool, default=False
            Replace an existing file.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        FileExistsError
            If the file exists and `overwrite` is false.
        ImportError
            As in `to_html`.
        """
        return write_new(path, self.to_html(), overwrite=overwrite)


def write_new(path: str | os.PathLike[str], text: str, *, overwrite: bool = False) -> Path:
    """Write a text file atomically; by default do not replace an existing one.

    Parameters
    ----------
    path : str or path
        The file to write; its folder must exist.
    text : str
        Its content, encoded as UTF-8.
    overwrite : bool, default=False
        Replace an existing file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        If the file exists and `overwrite` is false.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from cmstats.report import write_new
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_new(pathlib.Path(folder, "page.html"), "<p>text</p>").read_text()
    '<p>text</p>'
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists: choose another name, or say to overwrite it")
    # tempfile would ignore the umask: its files are readable by their owner only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path
