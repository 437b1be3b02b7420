"""What every test file shares: markers, threads, the data folder, array namespaces, seeds."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import threadpoolctl
from contract.places import PLACES, Place
from contract.registry import parametrize
from hypothesis import settings

HERE = Path(__file__).parent
NOT_QUICK = ("slow", "ordinary", "data", "torch", "dask", "cuda", "gpu", "subprocess")

# Numba compiles inside the first example, so no deadline; CI draws the same examples every time.
in_ci = bool(os.environ.get("CI"))
settings.register_profile("default", deadline=None, max_examples=6, derandomize=in_ci)
settings.register_profile("quick", settings.get_profile("default"), max_examples=3)
settings.register_profile("long", settings.get_profile("default"), max_examples=100)


def pytest_configure(config: pytest.Config) -> None:
    """Few examples in the quick set; one thread of BLAS in each of several processes."""
    if config.getoption("--hypothesis-profile", None) is None:
        settings.load_profile("quick" if config.option.markexpr == "quick" else "default")
    if hasattr(config, "workerinput"):
        threadpoolctl.threadpool_limits(1)
        if importlib.util.find_spec("torch") is not None:
            os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for a whole set of tests, none beside this one for some test files."""
    named = [Path(str(arg).split("::")[0]) for arg in config.args]
    whole = all(path.resolve() in (HERE, HERE.parent) for path in named)
    return min(2, os.cpu_count() or 1) if whole else 0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every property of the contract, for every model that is enrolled."""
    parametrize(metafunc)


@functools.cache
def _has_cuda_device() -> bool:
    try:
        from numba import config, cuda

        return not config.ENABLE_CUDASIM and bool(cuda.is_available())
    except Exception:  # a driver that is half there raises all kinds of errors
        return False


def _resources(item: pytest.Item) -> Iterator[str]:
    """The markers that follow from the arguments of a test."""
    if {"data_home", "data_file"} & {*getattr(item, "fixturenames", ())}:
        yield "data"
    names = []
    for value in getattr(getattr(item, "callspec", None), "params", {}).values():
        names += value if isinstance(value, tuple) else (value,)
    if any(isinstance(name, str) and name == "torch" for name in names):
        yield "torch"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a CUDA device; one is looked for only where such a test is to run."""
    if item.get_closest_marker("gpu") and not _has_cuda_device():
        pytest.skip("no CUDA device")


def pytest_collection_finish() -> None:
    """Leave the items out of all later garbage collections, which would go over them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what a test needs, skip it where that is absent, and mark the others as quick."""
    no_torch = importlib.util.find_spec("torch") is None
    for item in items:
        for name in _resources(item):
            item.add_marker(name)
        if no_torch and item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason="torch is not installed"))
        if not any(item.get_closest_marker(name) for name in NOT_QUICK):
            item.add_marker("quick")


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Two threads for the kernels, in whatever process the test runs."""
    with threadpoolctl.threadpool_limits(2):
        yield


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


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Place:
    """Each array library and device in turn."""
    return Place(request.param)


@pytest.fixture
def to_xp(xp: ModuleType) -> Callable[[Any], Any]:
    """`to_xp(a)` is a copy of the NumPy array `a` in the namespace `xp`, None stays None."""

    def convert(a: Any) -> Any:
        return None if a is None else xp.asarray(np.array(a))

    return convert
