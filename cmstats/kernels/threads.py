"""Python threads over tiles of rows, each calling BLAS with one thread.

Numba's parallel loops between multithreaded matrix products take several times as long: the
two pools of threads compete for the cores. Kernels that mix BLAS and loops therefore run
serial code that releases the interpreter lock, on Python threads, and BLAS is limited to one
thread in the process meanwhile. Small problems start no thread and set no limit.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

from threadpoolctl import ThreadpoolController, threadpool_limits

__all__ = [
    "ONE_THREAD",
    "blas_for",
    "cores",
    "even_slices",
    "one_core",
    "openmp",
    "run_tasks",
    "serial_blas",
    "thread_map",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

ONE_THREAD = 32
"""Factorisations of matrices of at most this many columns do not pay for a second thread."""

_one_core: contextvars.ContextVar[bool] = contextvars.ContextVar("one_core", default=False)


class _Limit:
    """BLAS on one thread as long as any token is alive; the limit belongs to the process.

    An interrupt can end a caller between any two instructions. So a caller is counted by an object
    that dies with it, what was found is stored before anything is set and forgotten after it has
    been restored, and each step may be repeated.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a token may die while this thread holds it
        self.users: weakref.WeakSet[_Token] = weakref.WeakSet()
        self.found: list[tuple[Any, int]] | None = None
        self.forked = False

    def allowed(self) -> int:
        """The threads of BLAS that the user allows."""
        with self.lock:
            self.settle()
            if self.found is None:
                return max((lib.num_threads for lib in _blas()), default=os.cpu_count() or 1)
            return max((count for _, count in self.found), default=os.cpu_count() or 1)

    def enter(self, token: _Token) -> None:
        with self.lock:
            self.settle()
            weakref.finalize(token, self.settle).atexit = False
            self.users.add(token)
            if self.found is None:
                self.found = [(lib, lib.num_threads) for lib in _blas()]
                for lib, _ in self.found:
                    lib.set_num_threads(1)

    def leave(self, token: _Token) -> None:
        with self.lock:
            self.users.discard(token)
            self.settle()

    def settle(self) -> None:
        """Restore the threads of BLAS where nobody is left."""
        with self.lock:
            if self.found is not None and not self.users:
                for lib, count in self.found:
                    lib.set_num_threads(count)
                self.found = None

    def in_child(self) -> None:
        """A forked process has this thread only."""
        self.lock, self.forked = threading.RLock(), True


class _Token:
    """A caller inside `serial_blas`."""


_limit = _Limit()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_limit.in_child)


@functools.cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - its BLAS must be loaded to be found

    return ThreadpoolController()  # scans the loaded libraries, milliseconds: once


@contextmanager
def one_core() -> Iterator[None]:
    """One thread for all kernels called inside, where a scheduler runs tasks on every core."""
    token = _one_core.set(True)
    try:
        with serial_blas():
            yield
    finally:
        _one_core.reset(token)


def cores() -> int:
    """How many threads the user allows: BLAS's setting, which the environment can lower."""
    return 1 if _one_core.get() else _limit.allowed()


def _blas() -> list[Any]:
    return [lib for lib in _controller().lib_controllers if lib.user_api == "blas"]


@contextmanager
def serial_blas() -> Iterator[None]:
    """BLAS on one thread while any caller is inside; the last one out restores the setting.

    The limit belongs to the process: overlapping callers that each restored what they found
    would leave BLAS on one thread for good.
    """
    token = _Token()
    try:
        _limit.enter(token)
        yield
    finally:
        _limit.leave(token)


def openmp() -> AbstractContextManager[Any]:
    """For code of other libraries that runs OpenMP: one thread in a forked process.

    The threads of a parent do not exist in its child, where GNU's OpenMP waits for them for ever.
    """
    if not _limit.forked:
        return nullcontext()
    limit: AbstractContextManager[Any] = threadpool_limits(1, user_api="openmp")
    return limit


def blas_for(size: int) -> AbstractContextManager[None]:
    """A BLAS of one thread for factorisations of small matrices, of all threads for large ones.

    On matrices of some hundred columns more threads win nothing, and lose up to 30 times where
    the cores are busy, since each call waits for the last thread. BLAS itself takes one thread
    up to `ONE_THREAD` columns, so that nothing need be set for those.
    """
    return serial_blas() if ONE_THREAD < size <= 1024 else nullcontext()


def thread_map(
    function: Callable[[Item], Result], items: Sequence[Item], *, inline: bool = False
) -> list[Result]:
    """``[function(item) for item in items]`` on as many threads as there are cores.

    Parameters
    ----------
    function : callable
        Most of its time must be spent without the interpreter lock.
    items : sequence
        Handed out one by one: a core that is busy elsewhere takes fewer.
    inline : bool, default=False
        On this thread alone: for work too small to share.

    Raises
    ------
    Exception
        That of the first item which raised one; items not begun by then are left out.
    """
    workers = 1 if inline or len(items) < 2 else min(cores(), len(items))
    if workers < 2:
        return [function(item) for item in items]
    # What the caller set for floating-point errors and warnings holds in the threads.
    contexts = [contextvars.copy_context() for _ in items]
    with serial_blas(), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda context, item: context.run(function, item), contexts, items))


def run_tasks(tasks: Sequence[Callable[[], object]], *, inline: bool = False) -> None:
    """Call all tasks, shared out among the threads."""
    thread_map(lambda task: task(), tasks, inline=inline)


def even_slices(n: int, parts: int) -> list[slice]:
    """`parts` slices that cut ``range(n)`` into runs whose lengths differ by one at most."""
    bounds = [n * i // max(1, parts) for i in range(parts + 1)]
    return [slice(*pair) for pair in itertools.pairwise(bounds)]
