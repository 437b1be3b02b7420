"""What the library does today it does tomorrow: the cases of `frozen` against its file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from frozen import CASES, differences, promises, run, stored
from threadpoolctl import threadpool_limits

pytestmark = pytest.mark.slow

STORED = stored()
OTHER_MACHINES = 1e-7
PROMISES = promises()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """On so few rows threads only wait for each other."""
    with threadpool_limits(1):
        yield


def test_every_case_is_stored() -> None:
    assert set(CASES) | set(PROMISES) >= set(STORED)
    assert set(CASES) <= set(STORED)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CASES)
def test_results_are_those_that_were_frozen(name: str) -> None:
    if "torch_of" in name:
        pytest.importorskip("torch", exc_type=ImportError)
    assert not differences(STORED[name], run(name), max(OTHER_MACHINES, 10 * CASES[name].tol))


@pytest.mark.parametrize("name", [n for n in STORED if n not in CASES])
def test_names_and_signatures_are_still_there(name: str) -> None:
    assert not differences(STORED[name], PROMISES[name], 0)
