"""The models: each a closed form on moments, or on rows where it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmstats import lazy

if TYPE_CHECKING:
    from cmstats.models.autoencoder import LinearAutoencoder
    from cmstats.models.cca import CCA
    from cmstats.models.conformal import ConformalRetriever
    from cmstats.models.feature_maps import ExactKernelMap, NystroemMap, RandomFourierMap
    from cmstats.models.gaussian import ConditionalGaussian
    from cmstats.models.kernel_cca import KernelCCA
    from cmstats.models.mixture import ConditionalGaussianMixture
    from cmstats.models.multitask import MultitaskRegressor
    from cmstats.models.multiview import MultiviewCCA
    from cmstats.models.orthogonal_map import OrthogonalMap
    from cmstats.models.pairs import MatchProbability, check_pairs, match_probability
    from cmstats.models.pipeline import TwoViewPipeline
    from cmstats.models.pls import PLS
    from cmstats.models.prototypes import PrototypeClassifier
    from cmstats.models.semantic import SemanticMatching
    from cmstats.models.sparse_cca import SparseCCA
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "autoencoder": ("LinearAutoencoder",),
            "cca": ("CCA",),
            "conformal": ("ConformalRetriever",),
            "feature_maps": ("ExactKernelMap", "NystroemMap", "RandomFourierMap"),
            "gaussian": ("ConditionalGaussian",),
            "kernel_cca": ("KernelCCA",),
            "mixture": ("ConditionalGaussianMixture",),
            "multitask": ("MultitaskRegressor",),
            "multiview": ("MultiviewCCA",),
            "pairs": ("MatchProbability", "check_pairs", "match_probability"),
            "pipeline": ("TwoViewPipeline",),
            "prototypes": ("PrototypeClassifier",),
            "semantic": ("SemanticMatching",),
            "pls": ("PLS",),
            "sparse_cca": ("SparseCCA",),
            "orthogonal_map": ("OrthogonalMap",),
        },
    )

__all__ = [
    "CCA",
    "PLS",
    "ConditionalGaussian",
    "ConditionalGaussianMixture",
    "ConformalRetriever",
    "ExactKernelMap",
    "KernelCCA",
    "LinearAutoencoder",
    "MatchProbability",
    "MultitaskRegressor",
    "MultiviewCCA",
    "NystroemMap",
    "OrthogonalMap",
    "PrototypeClassifier",
    "RandomFourierMap",
    "SemanticMatching",
    "SparseCCA",
    "TwoViewPipeline",
    "check_pairs",
    "match_probability",
]
