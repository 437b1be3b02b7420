"""Every CUDA kernel runs in Numba's simulator, in a process of its own, on any machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted((HERE / "cuda").glob("test_*.py"))


def test_there_are_cuda_cases() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_cuda_cases_pass_in_the_simulator(path: Path) -> None:
    # Numba reads the variable when it is imported: a process of its own is the only way.
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "PYTEST_ADDOPTS": "",
        # The simulator runs kernels as Python threads: BLAS threads beside them only fight.
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", str(path.relative_to(HERE.parent)), "-q"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    done = subprocess.run(
        command, cwd=HERE.parent, env=environment, capture_output=True, text=True, timeout=300
    )
    output = done.stdout[-4000:] + done.stderr[-2000:]
    assert done.returncode == 0, output
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, output
    assert int(passed.group(1)) > 0, output
