"""Classical statistical cross-modal analysis: CCA and its kin from joint moments."""

from cmstats.datasets.loaders import load_emoji, load_linnerud, load_mnist_halves, load_wikipedia
from cmstats.inference import (
    bootstrap,
    canonical_correlation_test,
    component_stability,
    correlation_intervals,
    loadings_table,
    permutation_test,
    redundancy,
)
from cmstats.metrics.retrieval import retrieval_report, search
from cmstats.model_selection.comparison import compare, learning_curves, overtakes, suggest_models
from cmstats.model_selection.search import MomentsSearchCV
from cmstats.models.autoencoder import LinearAutoencoder
from cmstats.models.cca import CCA
from cmstats.models.feature_maps import ExactKernelMap, NystroemMap, RandomFourierMap
from cmstats.models.gaussian import ConditionalGaussian
from cmstats.models.kernel_cca import KernelCCA
from cmstats.models.mixture import ConditionalGaussianMixture
from cmstats.models.multitask import MultitaskRegressor
from cmstats.models.multiview import MultiviewCCA
from cmstats.models.pipeline import TwoViewPipeline
from cmstats.models.semantic import SemanticMatching
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import map_rows
from cmstats.rows.files import open_shards
from cmstats.rows.parquet import open_parquet
from cmstats.rows.writer import write_shards

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
