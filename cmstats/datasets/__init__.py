"""The data that ships with the package, and loaders for the standard cross-modal sets."""

from cmstats.datasets.loaders import (
    load_emoji,
    load_fashion,
    load_linnerud,
    load_mmreg,
    load_mnist_halves,
    load_wikipedia,
)

__all__ = [
    "load_emoji",
    "load_fashion",
    "load_linnerud",
    "load_mmreg",
    "load_mnist_halves",
    "load_wikipedia",
]
