"""Where the CUDA cases run: in Numba's simulator, on a real GPU, or not at all (skipped).

A case is a plain test function in ``tests/cuda/test_*_cuda.py`` that launches kernels on
arrays made by ``numba.cuda.to_device`` and reads them back with ``copy_to_host``; it is the
same function in both places. The simulator is a run of its own, because Numba reads its
variable once, when it is imported::

    NUMBA_ENABLE_CUDASIM=1 python -m pytest -m slow tests/cuda

Cases that compile to PTX (marker ``ptx``, fixture ``compile_ptx``) need
libnvvm but no device, and run where the others are skipped.

There is no ``__init__.py`` in this folder on purpose: pytest puts ``tests`` on the path, and
a package named ``cuda`` there would hide NVIDIA's own ``cuda`` package.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numba
import numpy as np
import pytest

HERE = Path(__file__).parent


def _simulated() -> bool:
    return bool(numba.config.ENABLE_CUDASIM)


def _no_device() -> str | None:
    """Why no kernel can be launched here, or None where one can."""
    from numba import cuda

    if _simulated() or cuda.is_available():
        return None
    return "no CUDA GPU; NUMBA_ENABLE_CUDASIM=1 runs this case in the simulator"


def _no_ptx() -> str | None:
    """Why nothing can be compiled to PTX here, or None where it can."""
    if _simulated():
        return "the simulator does not compile; the ordinary process does"
    from numba.cuda.cudadrv import nvvm

    try:
        nvvm.NVVM()
    except Exception as error:  # whatever a half-installed toolkit raises
        return f"libnvvm was not found ({type(error).__name__})"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # This hook sees the items of every folder, not only of this one.
    here = [item for item in items if HERE in item.path.parents]
    if not here:
        return
    device, compiler = _no_device(), _no_ptx()
    for item in here:
        item.add_marker(pytest.mark.cuda)
        item.add_marker(pytest.mark.slow)
        needs_compiler = item.get_closest_marker("ptx") is not None
        if not needs_compiler and not _simulated():
            item.add_marker(pytest.mark.gpu)
        reason = compiler if needs_compiler else device
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


# Where kernels are assembled, and the architecture of the PTX that the assembler gets: Numba knows
# none after sm_90, and what is compiled for one is assembled for the later ones.
ASSEMBLED = {"sm_80": 80, "sm_90": 90, "sm_100": 90}


@pytest.fixture(params=ASSEMBLED)
def compile_ptx(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., str]:
    """``compile_ptx(kernel, signature)``: the PTX of a ``cuda.jit`` kernel.

    Where the toolkit's assembler is present, each kernel is assembled as well, for three
    architectures: none may spill registers. What it takes is printed (``pytest -rP``). Without
    it, kernels are compiled for sm_90 alone.
    """
    from numba import cuda
    from numba.cuda import dispatcher

    place = request.param
    ptxas = shutil.which("ptxas")
    if place != "sm_90" and ptxas is None:
        pytest.skip("ptxas, the assembler of the CUDA toolkit, is not on the path")
    capability = divmod(ASSEMBLED[place], 10)
    # A device function that a kernel calls is compiled for the device at hand.
    device = SimpleNamespace(compute_capability=capability)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: device)

    def compile_one(kernel: Any, signature: tuple[Any, ...]) -> str:
        source, options = getattr(kernel, "py_func", kernel), getattr(kernel, "targetoptions", {})
        fast = bool(options.get("fastmath", False))
        ptx, _ = cuda.compile_ptx(source, signature, cc=capability, fastmath=fast)
        assert f".target sm_{ASSEMBLED[place]}" in ptx
        if ptxas is not None:
            (tmp_path / "kernel.ptx").write_text(ptx)
            command = [ptxas, "-v", f"-arch={place}", "-o", os.devnull, "kernel.ptx"]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            (taken,) = re.findall(r"Used (\d+ registers.*)", done.stderr)
            print(f"{source.__name__} on {place}: {taken}")
            spilled = re.findall(r"(\d+) bytes spill", done.stderr)
            assert set(spilled) == {"0"}, done.stderr
        return str(ptx)

    return compile_one


@pytest.fixture
def numpy_as_cupy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """NumPy under CuPy's name: the CuPy routes run in the simulator, the library calls by NumPy.

    On a device the routes run with CuPy itself, through the dispatchers.
    """
    if not _simulated():
        pytest.skip("stands in for CuPy in the simulator only")
    cupy = ModuleType("cupy")
    cupy.__dict__.update({n: getattr(np, n) for n in dir(np) if not n.startswith("_")})
    cupy.ndarray = type("ndarray", (), {})  # type: ignore[attr-defined] # NumPy's are not CuPy's
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    return cupy
