"""Displays of models and results, with the interface of scikit-learn's.

A display holds the numbers that it draws; ``from_estimator``, ``from_predictions`` and
``from_results`` compute and draw them, and ``plot(ax=None)`` draws them again in any axes. Arrays
of other libraries are copied to the host. Matplotlib is imported when something is drawn.
"""

from cmstats.plotting.bootstrap import BootstrapDisplay
from cmstats.plotting.calibration import ConditionalCalibrationDisplay, MatchCalibrationDisplay
from cmstats.plotting.comparison import ComparisonDisplay, LearningCurvesDisplay
from cmstats.plotting.conformal import ConformalSetDisplay
from cmstats.plotting.correlations import CorrelationDisplay
from cmstats.plotting.embedding import JointEmbeddingDisplay
from cmstats.plotting.gallery import RetrievalDisplay
from cmstats.plotting.loadings import LoadingsDisplay
from cmstats.plotting.precision import PrecisionRecallCurveDisplay
from cmstats.plotting.retrieval import RecallCurveDisplay
from cmstats.plotting.shrinkage import ShrinkagePathDisplay
from cmstats.plotting.sparsity import SparsePathDisplay

__all__ = [
    "BootstrapDisplay",
    "ComparisonDisplay",
    "ConditionalCalibrationDisplay",
    "ConformalSetDisplay",
    "CorrelationDisplay",
    "JointEmbeddingDisplay",
    "LearningCurvesDisplay",
    "LoadingsDisplay",
    "MatchCalibrationDisplay",
    "PrecisionRecallCurveDisplay",
    "RecallCurveDisplay",
    "RetrievalDisplay",
    "ShrinkagePathDisplay",
    "SparsePathDisplay",
]
