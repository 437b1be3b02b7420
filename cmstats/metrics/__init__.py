"""Retrieval metrics, search, scorers for model selection, and similarity of representations.

The arguments are those of one convention: `U` and `V` are embeddings whose inner product is
the similarity (what `embed` of every model returns), or `U` alone is a matrix of scores with
the queries in rows. Row i of `U` and row i of `V` belong together unless `x_ids` and `y_ids`
say otherwise. Scores are never stored whole (`cmstats.kernels.ranks`), results are numbers
and a DataFrame on the host.

Ties count as broken at random in ranks (constant scores are at chance level, not perfect), and
as in `sklearn.metrics.average_precision_score` in average precisions.
"""

from cmstats.metrics.alignment import (
    linear_cka,
    mutual_knn_alignment,
    procrustes_distance,
    pwcca,
    svcca,
)
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
    total_correlation_scorer,
)

__all__ = [
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
