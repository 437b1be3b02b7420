"""What every test file shares: the data folder, array namespaces, seeds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np
import pytest
from contract.registry import parametrize
from hypothesis import settings

SIMULATOR = "simulator"
PROCESS = pytest.StashKey[tuple[subprocess.Popen[bytes], IO[str]]]()

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
    """Skip what needs a CUDA device or torch where there is none; the simulator's result last."""
    if importlib.util.find_spec("torch") is None:
        for item in items:
            if item.get_closest_marker("torch"):
                item.add_marker(pytest.mark.skip(reason="torch is not installed"))
    items.sort(key=lambda item: SIMULATOR in getattr(item, "fixturenames", ()))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_cuda_device():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every property of the contract, for every model that is enrolled."""
    parametrize(metafunc)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the CUDA kernels in the simulator, if their result is among what is asked for."""
    asked = any(SIMULATOR in getattr(item, "fixturenames", ()) for item in session.items)
    if not asked or session.config.option.collectonly:
        return
    # Numba reads the variable when it is imported: a process of its own is the only way.
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "PYTEST_ADDOPTS": "",
        # The simulator runs kernels as Python threads: BLAS threads beside them only fight.
        "OPENBLAS_NUM_THREADS": "1",
    }
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", str(here / "cuda"), "-q"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    # A pipe that nobody reads would fill up.
    output = tempfile.TemporaryFile("w+")  # noqa: SIM115
    process = subprocess.Popen(
        command, cwd=here.parent, env=environment, stdout=output, stderr=subprocess.STDOUT
    )
    session.config.stash[PROCESS] = (process, output)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no simulator behind a session that was interrupted."""
    process, output = session.config.stash.get(PROCESS, (None, None))
    if process is not None and output is not None:
        process.kill()
        process.wait()
        output.close()


@pytest.fixture
def simulator(request: pytest.FixtureRequest) -> Callable[[], tuple[int, str]]:
    """Waits for the CUDA kernels in the simulator: exit status and output."""

    def finish() -> tuple[int, str]:
        process, output = request.config.stash[PROCESS]
        status = process.wait(timeout=300)
        output.seek(0)
        return status, output.read()

    return finish


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
