"""Choosing among models: search on fold moments, comparison on the same folds, suggestions."""

from cmstats.model_selection.comparison import compare, learning_curves, overtakes
from cmstats.model_selection.search import MomentsSearchCV, one_standard_error
from cmstats.model_selection.suggestions import Suggestions, suggest_models

__all__ = [
    "MomentsSearchCV",
    "Suggestions",
    "compare",
    "learning_curves",
    "one_standard_error",
    "overtakes",
    "suggest_models",
]
