"""Every CUDA kernel runs in Numba's simulator, in a process of its own, on any machine.

It takes a minute of one core: `conftest` starts the process when the session begins and puts
this test last, so that the rest of the tests run beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent


def test_cuda_cases_pass_in_the_simulator(simulator: Callable[[], tuple[int, str]]) -> None:
    status, output = simulator()
    assert status == 0, output[-6000:]
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None, output[-6000:]
    cases = len(list((HERE / "cuda").glob("test_*_cuda.py")))
    assert int(passed.group(1)) > 5 * cases, output[-6000:]
