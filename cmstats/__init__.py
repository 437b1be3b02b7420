"""Classical statistical cross-modal analysis: CCA and its kin from joint moments."""

from cmstats.autoencoder import LinearAutoencoder
from cmstats.cca import CCA
from cmstats.datasets import load_emoji, load_linnerud, load_mnist_halves, load_wikipedia
from cmstats.gaussian import ConditionalGaussian
from cmstats.metrics import retrieval_report, search
from cmstats.mixture import ConditionalGaussianMixture
from cmstats.model_selection import MomentsSearchCV
from cmstats.moments import Moments
from cmstats.multiview import MultiviewCCA
from cmstats.pipeline import TwoViewPipeline

__version__ = "0.1.0"

__all__ = [
    "CCA",
    "ConditionalGaussian",
    "ConditionalGaussianMixture",
    "LinearAutoencoder",
    "Moments",
    "MomentsSearchCV",
    "MultiviewCCA",
    "TwoViewPipeline",
    "__version__",
    "load_emoji",
    "load_linnerud",
    "load_mnist_halves",
    "load_wikipedia",
    "retrieval_report",
    "search",
]
