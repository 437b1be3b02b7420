"""Classical statistical cross-modal analysis: CCA and its kin from joint moments.

A name is imported at its first access: ``import cmstats`` by itself loads no other library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"


def lazy(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """``__getattr__`` and ``__dir__`` of a package that imports its names at first access.

    Parameters
    ----------
    package : str
        Its ``__name__``.
    names : mapping of str to sequence of str
        The public names in each of its submodules. The submodules are attributes too.

    Returns
    -------
    tuple of two functions
        As PEP 562 describes them.
    """
    homes = {name: module for module, public in names.items() for name in public}

    def load(name: str) -> Any:
        if name in homes:
            value = getattr(import_module(f"{package}.{homes[name]}"), name)
        elif not name.startswith("_") and find_spec(f"{package}.{name}"):
            value = import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def listing() -> list[str]:
        from pkgutil import iter_modules

        module = sys.modules[package]
        modules = (m.name for m in iter_modules(module.__path__) if not m.name.startswith("_"))
        return sorted({*vars(module)["__all__"], *modules})

    return load, listing


if TYPE_CHECKING:
    from cmstats.datasets import load_emoji, load_linnerud, load_mnist_halves, load_wikipedia
    from cmstats.inference import (
        canonical_correlation_test,
        correlation_intervals,
        loadings_table,
        permutation_test,
        redundancy,
    )
    from cmstats.inference.bootstrap import bootstrap, component_stability
    from cmstats.metrics import retrieval_report, search
    from cmstats.model_selection import (
        CrossModalRetriever,
        MomentsSearchCV,
        compare,
        learning_curves,
        overtakes,
        suggest_models,
    )
    from cmstats.models import (
        CCA,
        PLS,
        ConditionalGaussian,
        ConditionalGaussianMixture,
        ConformalRetriever,
        ExactKernelMap,
        KernelCCA,
        LinearAutoencoder,
        MultitaskRegressor,
        MultiviewCCA,
        NystroemMap,
        OrthogonalMap,
        PrototypeClassifier,
        RandomFourierMap,
        SemanticMatching,
        SparseCCA,
        TwoViewPipeline,
        check_pairs,
        match_probability,
    )
    from cmstats.moments import Moments
    from cmstats.rows import map_rows, open_parquet, open_shards, write_shards
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "datasets": ("load_emoji", "load_linnerud", "load_mnist_halves", "load_wikipedia"),
            "inference": (
                "canonical_correlation_test",
                "correlation_intervals",
                "loadings_table",
                "permutation_test",
                "redundancy",
            ),
            "inference.bootstrap": ("bootstrap", "component_stability"),
            "metrics": ("retrieval_report", "search"),
            "model_selection": (
                "CrossModalRetriever",
                "MomentsSearchCV",
                "compare",
                "learning_curves",
                "overtakes",
                "suggest_models",
            ),
            "models": (
                "CCA",
                "ConditionalGaussian",
                "ConditionalGaussianMixture",
                "ConformalRetriever",
                "ExactKernelMap",
                "KernelCCA",
                "LinearAutoencoder",
                "MultitaskRegressor",
                "MultiviewCCA",
                "NystroemMap",
                "OrthogonalMap",
                "PLS",
                "PrototypeClassifier",
                "RandomFourierMap",
                "SemanticMatching",
                "SparseCCA",
                "TwoViewPipeline",
                "check_pairs",
                "match_probability",
            ),
            "moments": ("Moments",),
            "rows": ("map_rows", "open_parquet", "open_shards", "write_shards"),
        },
    )

__all__ = [
    "CCA",
    "PLS",
    "ConditionalGaussian",
    "ConditionalGaussianMixture",
    "ConformalRetriever",
    "CrossModalRetriever",
    "ExactKernelMap",
    "KernelCCA",
    "LinearAutoencoder",
    "Moments",
    "MomentsSearchCV",
    "MultitaskRegressor",
    "MultiviewCCA",
    "NystroemMap",
    "OrthogonalMap",
    "PrototypeClassifier",
    "RandomFourierMap",
    "SemanticMatching",
    "SparseCCA",
    "TwoViewPipeline",
    "__version__",
    "bootstrap",
    "canonical_correlation_test",
    "check_pairs",
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
    "match_probability",
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
