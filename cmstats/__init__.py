"""Classical statistical cross-modal analysis: CCA and its kin from joint moments."""

from cmstats.autoencoder import LinearAutoencoder
from cmstats.cca import CCA
from cmstats.comparison import compare, learning_curves, overtakes, suggest_models
from cmstats.datasets import load_emoji, load_linnerud, load_mnist_halves, load_wikipedia
from cmstats.feature_maps import ExactKernelMap, NystroemMap, RandomFourierMap
from cmstats.gaussian import ConditionalGaussian
from cmstats.inference import (
    bootstrap,
    canonical_correlation_test,
    component_stability,
    correlation_intervals,
    loadings_table,
    permutation_test,
    redundancy,
)
from cmstats.kernel_cca import KernelCCA
from cmstats.metrics import retrieval_report, search
from cmstats.mixture import ConditionalGaussianMixture
from cmstats.model_selection import MomentsSearchCV
from cmstats.moments import Moments
from cmstats.multitask import MultitaskRegressor
from cmstats.multiview import MultiviewCCA
from cmstats.pipeline import TwoViewPipeline
from cmstats.semantic import SemanticMatching
from cmstats.shards import map_rows, open_parquet, open_shards, write_shards

__version__ = "0.1.0"

__all__ = [
    "CCA",
    "ConditionalGaussian",
    "ConditionalGaussianMixture",
    "ExactKernelMap",
    "KernelCCA",
    "LinearAutoencoder",
    "Moments",
    "MomentsSearchCV",
    "MultitaskRegressor",
    "MultiviewCCA",
    "NystroemMap",
    "RandomFourierMap",
    "SemanticMatching",
    "TwoViewPipeline",
    "__version__",
    "bootstrap",
    "canonical_correlation_test",
    "compare",
    "component_stability",
    "correlation_intervals",
    "learning_curves",
    "load_emoji",
    "load_linnerud",
    "load_mnist_halves",
    "load_wikipedia",
    "loadings_table",
    "map_rows",
    "open_parquet",
    "open_shards",
    "overtakes",
    "permutation_test",
    "redundancy",
    "retrieval_report",
    "search",
    "suggest_models",
    "write_shards",
]
