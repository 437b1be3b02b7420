"""Every CUDA kernel runs in Numba's simulator, in a process of its own, on any machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_cuda_cases_pass_in_the_simulator() -> None:
    # Numba reads the variable when it is imported: a process of its own is the only way.
    environment = {
        **os.environ,
        "NUMBA_ENABLE_CUDASIM": "1",
        "PYTEST_ADDOPTS": "",
        # The simulator runs kernels as Python threads: BLAS threads beside them only fight.
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "tests/cuda", "-q"]
    command += ["-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts="]
    done = subprocess.run(
        command, cwd=HERE.parent, env=environment, capture_output=True, text=True, timeout=300
    )
    output = done.stdout[-4000:] + done.stderr[-2000:]
    assert done.returncode == 0, output
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, output
    cases = len(list((HERE / "cuda").glob("test_*_cuda.py")))
    assert int(passed.group(1)) > 5 * cases, output
