"""Sharing work among threads, and not starting any for little work."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from cmstats import (
    CCA,
    ConditionalGaussian,
    LinearAutoencoder,
    MultitaskRegressor,
    MultiviewCCA,
)
from cmstats.kernels import threads
from cmstats.kernels.threads import cores, run_tasks, thread_map

pytestmark = pytest.mark.usefixtures("two_threads")


def test_what_the_caller_ignores_is_ignored_in_every_thread() -> None:
    gate = threading.Barrier(min(cores(), 2), timeout=20)

    def task() -> None:
        gate.wait()  # each task on a thread of its own
        np.subtract(np.inf, np.full(3, np.inf))

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("error")
        run_tasks([task] * min(cores(), 2))


def test_the_first_error_ends_the_work() -> None:
    begun = []

    def task(item: int) -> int:
        begun.append(item)
        time.sleep(0.002 * (item > 0))
        return 1 // item

    with pytest.raises(ZeroDivisionError):
        thread_map(task, [0, *range(1, 1000)])
    assert len(begun) < 1000
    assert thread_map(task, [1, 1]) == [1, 1]


SMALL_FITS: dict[str, Callable[..., Any]] = {
    "CCA": lambda X, Y, Z: CCA().fit(X, Y),
    "CCA, cv": lambda X, Y, Z: CCA(shrinkage="cv").fit(X, Y),
    "CCA, svd": lambda X, Y, Z: CCA(solver="svd").fit(X, Y),
    "MultiviewCCA": lambda X, Y, Z: MultiviewCCA().fit([X, Y, Z]),
    "MultiviewCCA, cv": lambda X, Y, Z: MultiviewCCA(shrinkage="cv").fit([X, Y, Z]),
    "ConditionalGaussian": lambda X, Y, Z: ConditionalGaussian(shrinkage=0.1).fit(X, Y),
    "ConditionalGaussian, cv": lambda X, Y, Z: ConditionalGaussian(shrinkage="cv").fit(X, Y),
    "LinearAutoencoder": lambda X, Y, Z: LinearAutoencoder(2, target="self").fit(X),
    "LinearAutoencoder, joint": lambda X, Y, Z: LinearAutoencoder(2).fit(X, Y),
    "MultitaskRegressor": lambda X, Y, Z: MultitaskRegressor(alpha=1.0).fit(X, Y),
    "MultitaskRegressor, cv": lambda X, Y, Z: MultitaskRegressor().fit(X, Y),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SMALL_FITS)
def test_a_small_fit_starts_no_thread_and_sets_no_limit(
    name: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a small fit entered the machinery of large ones")

    for part in ("ThreadPoolExecutor", "_controller"):
        monkeypatch.setattr(threads, part, refuse)
    for part in ("limit", "info"):
        monkeypatch.setattr(ThreadpoolController, part, refuse)
    X, Y, Z = rng.normal(size=(3, 20, 3))
    SMALL_FITS[name](X, Y + X, Z + X)
