"""The comparison of models: the fast ones of `suggest_models` on a sample of the items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cmstats.arrays import recorded
from cmstats.model_selection.comparison import compare, suggest_models

__all__ = ["Models", "compare_models"]

TRAINED, HELD_OUT = 1000, 500
"""The most items in training and in evaluation."""
BUDGET = 5.0
"""Seconds for the choice of `CrossModalRetriever`."""
SLOW = ("ContrastiveAligner",)
"""Suggested models that take longer than the rest of the page."""


@dataclass(frozen=True)
class Models:
    """A comparison of models.

    Attributes
    ----------
    table : DataFrame
        The table of `compare`.
    reasons : dict of name -> sentence
        Why each model was suggested.
    baseline : str
        The model that the others are compared with.
    n_train, n_test : int
        The items in training and in evaluation.
    left_out : tuple of str
        Models that were suggested but are too slow for a report.
    remarks : tuple of str
        The distinct warnings of the models.
    """

    table: pd.DataFrame
    reasons: dict[str, str]
    baseline: str
    n_train: int
    n_test: int
    left_out: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def metric(self) -> str:
        """The metric whose differences are tested."""
        return str(self.table.attrs["metric"])


def compare_models(
    X: Any, Y: Any, labels: Any, train: Any, test: Any, shrinkage: Any, seed: int
) -> Models:
    """`compare` the fast models of `suggest_models` on the report's split, or a sample of it.

    A model that would search for its shrinkage is given the report's, which was chosen on the
    training items: the search would take longer than the rest of the page. `CrossModalRetriever`
    has `BUDGET` seconds for its choice.
    """
    rng = np.random.default_rng(seed)
    train, test = (
        np.sort(rng.permutation(at)[:most]) for at, most in ((train, TRAINED), (test, HELD_OUT))
    )
    rows = np.concatenate([train, test])
    x, y = X[rows], Y[rows]
    classes = None if labels is None else _complete(labels[rows])
    split = [(np.arange(len(train)), np.arange(len(train), len(rows)))]
    suggested = suggest_models(x, y, labels=classes, random_state=seed)
    chosen = {name: model for name, model in suggested.items() if name not in SLOW}
    for model in chosen.values():
        budgets = [name for name in model.get_params() if name.endswith("time_budget")]
        model.set_params(**dict.fromkeys(budgets, BUDGET))
        if model.get_params().get("shrinkage") in ("cv", "auto"):
            model.set_params(shrinkage=shrinkage)
    baseline = "CrossModalRetriever" if "CrossModalRetriever" in chosen else "CCA"
    with recorded() as caught:
        table = compare(
            chosen, x, y, cv=split, labels=classes, baseline=baseline, n_resamples=1000,
            memory=False, random_state=seed,
        )  # fmt: skip
    remarks = dict.fromkeys(
        " ".join(message.split()) for message, kind in caught if issubclass(kind, UserWarning)
    )
    left_out = tuple(name for name in suggested if name in SLOW)
    reasons = {name: suggested.reasons[name] for name in chosen}
    return Models(table, reasons, baseline, len(train), len(test), left_out, tuple(remarks))


def _complete(labels: Any) -> Any:
    """The labels, or None if any is missing: some models accept only complete labels."""
    return None if pd.isna(pd.Series(labels)).any() else labels
