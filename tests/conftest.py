"""What every test file shares: the data folder, array namespaces, seeds."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# Numba compiles inside the first example, so no deadline; CI draws the same examples every time.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def _has_cuda_device() -> bool:
    try:
        from numba import config, cuda

        return not config.ENABLE_CUDASIM and bool(cuda.is_available())
    except Exception:  # a driver that is half there raises all kinds of errors
        return False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked gpu where there is no CUDA device."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_cuda_device():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session")
def data_home() -> Path:
    """The folder of the standard data sets, named by CMSTATS_DATA."""
    folder = os.environ.get("CMSTATS_DATA")
    if not folder:
        pytest.skip("CMSTATS_DATA is not set: it names the folder of the standard data sets")
    if not Path(folder).is_dir():
        pytest.skip(f"CMSTATS_DATA names no folder: {folder}")
    return Path(folder)


@pytest.fixture(scope="session")
def data_file(data_home: Path) -> Callable[[str], Path]:
    """`data_file("mmreg.npz")` is the path of one data file; skips where it is absent."""

    def find(name: str) -> Path:
        path = data_home / name
        if not path.is_file():
            pytest.skip(f"CMSTATS_DATA has no {name}")
        return path

    return find


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator that starts alike in every test."""
    return np.random.default_rng(20261123)


@pytest.fixture(params=["numpy", "torch", "array_api_strict"])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """Each array namespace in turn; one that is not installed is skipped."""
    name = request.param
    if name in ("torch", "array_api_strict"):
        pytest.importorskip(name, exc_type=ImportError)
    return importlib.import_module(
        name if name == "array_api_strict" else f"array_api_compat.{name}"
    )


@pytest.fixture
def to_xp(xp: ModuleType) -> Callable[[Any], Any]:
    """`to_xp(a)` is a copy of the NumPy array `a` in the namespace `xp`, None stays None."""

    def convert(a: Any) -> Any:
        return None if a is None else xp.asarray(np.array(a))

    return convert
