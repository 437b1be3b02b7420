"""Retrieval metrics, search, scorers for model selection, and similarity of representations.

All retrieval metrics share one convention: `U` and `V` are embeddings whose inner product is the
similarity (`embed` of every model returns such), or `U` alone is a matrix of scores with the
queries in rows. Row i of `U` and row i of `V` belong together unless `x_ids` and `y_ids` are
given. Scores are computed tile by tile and never stored whole (`cmstats.kernels.ranks`); results
are numbers or a DataFrame on the host.

Ranks are expectations when ties are broken at random, so that constant scores are at chance
level; average precisions treat ties as `sklearn.metrics.average_precision_score` does.
"""

from cmstats.metrics.alignment import (
    linear_cka,
    mutual_knn_alignment,
    procrustes_distance,
    pwcca,
    svcca,
)
from cmstats.metrics.calibration import expected_calibration_error
from cmstats.metrics.correlation import total_correlation_scorer
from cmstats.metrics.hubness import HubnessCorrection
from cmstats.metrics.retrieval import (
    make_retrieval_scorer,
    mean_average_precision,
    mean_reciprocal_rank,
    median_rank,
    recall_at_10_scorer,
    recall_at_k,
    retrieval_chance,
    retrieval_report,
    search,
)

__all__ = [
    "HubnessCorrection",
    "expected_calibration_error",
    "linear_cka",
    "make_retrieval_scorer",
    "mean_average_precision",
    "mean_reciprocal_rank",
    "median_rank",
    "mutual_knn_alignment",
    "procrustes_distance",
    "pwcca",
    "recall_at_10_scorer",
    "recall_at_k",
    "retrieval_chance",
    "retrieval_report",
    "search",
    "svcca",
    "total_correlation_scorer",
]
