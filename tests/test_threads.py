"""Sharing work among threads, and not starting any for little work."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
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
from cmstats.arrays import recorded, warn
from cmstats.kernels import threads
from cmstats.kernels._cpu._jit import jit
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


# ------------------------------------------------------------------ interrupts and other threads
def _blas_threads() -> list[int]:
    return [
        lib["num_threads"] for lib in ThreadpoolController().info() if lib["user_api"] == "blas"
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_leaves_blas_as_it_was() -> None:
    """A keyboard interrupt can come between any two lines of the code that sets the limit."""
    before, allowed = _blas_threads(), cores()
    path = threads.__file__
    lines = Path(path).read_text().splitlines()

    def interrupted_at(step: int) -> bool:
        left = step

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal left
            if frame.f_code.co_filename != path:
                return None
            # CPython handles no signal between taking and releasing a lock by `with`.
            if event == "line" and "with self.lock" not in lines[frame.f_lineno - 1]:
                left -= 1
                if left == 0:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            with threads.serial_blas():
                pass
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    step = 1
    while interrupted_at(step):
        gc.collect()
        with ThreadPoolExecutor(1) as other:  # which would wait for a lock that was not released
            assert other.submit(cores).result(20) == allowed
        assert _blas_threads() == before
        step += 1
    assert step > 8


@pytest.mark.ordinary
def test_threads_that_fit_leave_the_filters_of_warnings_alone() -> None:
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    Y = X[:, :3] + rng.normal(size=(60, 3))
    Y[:, 2] = 1.0  # a constant column: every fit has something to say
    shown, filters = warnings.showwarning, list(warnings.filters)

    def fits() -> None:
        for _ in range(3):
            CCA(shrinkage=("cv", 0.1), cv=2).fit(X, Y)

    pool = [threading.Thread(target=fits) for _ in range(5)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    assert warnings.showwarning is shown
    assert list(warnings.filters) == filters
    with pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", UserWarning, stacklevel=1)


def test_warnings_are_recorded_in_the_context_that_asked_for_it() -> None:
    begun, done = threading.Event(), threading.Event()

    def other() -> None:
        begun.wait(20)
        warnings.warn("of another thread", UserWarning, stacklevel=1)
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with recorded() as said:
            warnings.warn("of a library", UserWarning, stacklevel=1)
            warn("of ours")
            begun.set()
            done.wait(20)
        thread.join()
    assert [str(w.message) for w in shown] == ["of another thread"]
    assert said == [("of a library", UserWarning), ("of ours", UserWarning)]


@pytest.mark.slow
@pytest.mark.subprocess
def test_a_forked_child_fits_after_its_parent() -> None:
    code = """
import multiprocessing
import numpy as np
from cmstats import ConditionalGaussianMixture, KernelCCA

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(2000, 6)), rng.normal(size=(2000, 4))

def fits():
    ConditionalGaussianMixture(3, random_state=0, tol=1e-2).fit(X, Y)
    KernelCCA(2, landmarks="kmeans", approximation="nystroem", rank=50, random_state=0).fit(X, Y)

fits()
child = multiprocessing.get_context("fork").Process(target=fits)
child.start()
child.join(100)
assert child.exitcode == 0, child.exitcode
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_kernels_compile_where_no_folder_can_be_written(monkeypatch: Any) -> None:
    """A package and a home that are read-only: Numba finds no place for its cache."""
    njit = numba.njit

    def without_cache(*args: Any, cache: bool = False, **options: Any) -> Any:
        def compiled(function: Any) -> Any:
            if cache:
                raise RuntimeError(f"cannot cache function {function.__name__!r}: no locator")
            return njit(**options)(function)

        return compiled

    monkeypatch.setattr(numba, "njit", without_cache)
    double = jit(fastmath=True)(lambda x: 2 * x)
    assert double(np.arange(3.0)).sum() == 6
    assert len(double.signatures) == 1
