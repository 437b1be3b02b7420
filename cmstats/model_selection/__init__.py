"""Choosing among models: search on fold moments, comparison on the same folds, suggestions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmstats import lazy

if TYPE_CHECKING:
    from cmstats.model_selection.comparison import compare, learning_curves, overtakes
    from cmstats.model_selection.retriever import CrossModalRetriever
    from cmstats.model_selection.search import MomentsSearchCV, one_standard_error
    from cmstats.model_selection.suggestions import Suggestions, suggest_models
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "comparison": ("compare", "learning_curves", "overtakes"),
            "retriever": ("CrossModalRetriever",),
            "search": ("MomentsSearchCV", "one_standard_error"),
            "suggestions": ("Suggestions", "suggest_models"),
        },
    )

__all__ = [
    "CrossModalRetriever",
    "MomentsSearchCV",
    "Suggestions",
    "compare",
    "learning_curves",
    "one_standard_error",
    "overtakes",
    "suggest_models",
]
