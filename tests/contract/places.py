"""Array libraries and devices: `array_api_strict` has a second device, also without a GPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import array_api_compat
import numpy as np
import pytest

PLACES = ["numpy", "torch", "array_api_strict", "array_api_strict:device1"]
DTYPES = {"float64": 1e-10, "float32": 2e-3}


class Place:
    """An array library and a device: `place(a)` is `a` there."""

    def __init__(self, name: str) -> None:
        library, _, device = name.partition(":")
        self.xp = pytest.importorskip(library)
        if library == "torch":
            self.xp = pytest.importorskip("array_api_compat.torch")
        self.device = self.xp.Device(device) if device else None

    def __call__(self, a: Any, dtype: str = "float64") -> Any:
        a = np.asarray(a).astype(dtype)
        if self.device is not None:
            return self.xp.asarray(a, device=self.device)
        return self.xp.asarray(a.copy())

    def owns(self, a: Any) -> bool:
        one = self(np.ones(1))
        same = type(a) is type(one)
        return same and array_api_compat.device(a) == array_api_compat.device(one)


def places(*, numpy: bool = False) -> Iterator[Place]:
    """Each place whose library is installed; the second device stands for the strict library."""
    for name in PLACES[0 if numpy else 1 :]:
        if name == "array_api_strict":
            continue
        if importlib.util.find_spec(name.partition(":")[0]) is not None:
            yield Place(name)


def another(place: Place) -> Place:
    """A place of another library, or another device of the same."""
    if place.xp.__name__ == "numpy" or place.device is not None:
        return Place("array_api_strict")
    return Place("numpy")
