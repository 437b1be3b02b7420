"""The data of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cmstats.model_selection.retriever import CrossModalRetriever
from cmstats.models.cca import CCA
from cmstats.models.pairs import MatchProbability
from cmstats.report.checks import Warned
from cmstats.report.comparison import Models
from cmstats.report.correlations import Evidence
from cmstats.report.loadings import Loadings
from cmstats.report.mismatches import Mismatches
from cmstats.report.pictures import pixels_address
from cmstats.report.retrieval import Retrieval
from cmstats.report.tables import CHOSEN, cell

__all__ = ["Findings", "Gallery", "Indices", "Thing"]

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Gallery:
    """Queries, each with the items that it retrieves."""

    title: str
    note: str
    rows: list[tuple[Thing, list[Thing]]]


@dataclass(frozen=True)
class Thing:
    """A text or a picture in a gallery; `hit` marks the partner of the query."""

    text: str
    pixels: Any = None
    hit: bool = False

    @property
    def source(self) -> str:
        """The picture as a data address; empty without a picture."""
        return "" if self.pixels is None else pixels_address(self.pixels)


@dataclass
class Findings:
    """The data of a `Report`, which documents them; the page is rendered from these."""

    title: str
    views: tuple[str, str]
    model: CCA
    retriever: CrossModalRetriever = field(repr=False)
    table: pd.DataFrame
    retrieval: Retrieval = field(repr=False)
    evidence: Evidence = field(repr=False)
    mismatches: Mismatches = field(repr=False)
    matches: MatchProbability = field(repr=False)
    models: Models | None = field(repr=False)
    summary: pd.DataFrame = field(repr=False)
    warned: list[Warned] = field(repr=False)
    shrinkages: npt.NDArray[np.float64]
    shrinkage_scores: npt.NDArray[np.float64]
    train_correlations: npt.NDArray[np.float64]
    held_out_correlations: npt.NDArray[np.float64]
    variates: tuple[npt.NDArray[Any], npt.NDArray[Any]] = field(repr=False)
    loadings: Loadings = field(repr=False)
    likely_ids: list[str] = field(repr=False)
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
        """A held-out metric of the chosen model of retrieval, for one direction.

        Parameters
        ----------
        metric : str
            A column of `retrieval_report`, such as "R@10".
        direction : str
            One of `directions`.

        Returns
        -------
        float
        """
        return cell(self.table, CHOSEN, direction, metric)

    @property
    def directions(self) -> tuple[str, str]:
        """The names of the two directions of retrieval."""
        return self.retrieval.directions

    @property
    def verdict(self) -> list[str]:
        """The main results: correlations, retrieval and mismatched pairs, a sentence each.

        Columns that both views have are named before them.
        """
        return [
            *self.likely_ids,
            self.evidence.sentence,
            self.retrieval.sentence,
            self.mismatches.sentence,
        ]
