"""Copies from the host to a GPU through two pinned buffers; errors when GPU memory runs out.

A copy from pageable memory makes the GPU wait. Runs of rows are therefore written to one of
two page-locked buffers and copied from there on a separate stream, while the kernels of the
previous run are executing; a copy waits only for a buffer that is still in use.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.sparse

from cmstats.arrays import Array

__all__ = ["require_cupy", "to_device", "upload", "within_memory"]

ALIGNMENT = 512
"""Where an array may begin in a buffer, as CuPy's own allocations do."""

Result = TypeVar("Result")


def require_cupy(device: Any = "cuda") -> Any:
    """CuPy, or one sentence that says what is missing.

    Raises
    ------
    ValueError
        If `device` is no CUDA device, or there is none.
    ImportError
        If CuPy is not installed.
    """
    if str(device) != "cuda":
        raise ValueError(f"device must be None, 'cpu' or 'cuda', got {device!r}")
    try:
        import cupy
    except ImportError:
        raise ImportError(
            "device='cuda' needs CuPy: install the extra that fits your driver, cmstats[cuda12] "
            "or cmstats[cuda13]"
        ) from None
    if not cupy.cuda.is_available():
        raise ValueError("device='cuda' needs a CUDA GPU, and CuPy finds none: use device=None")
    return cupy


def upload(runs: Iterable[Sequence[Any]]) -> Iterator[list[Array | None]]:
    """Host arrays as CuPy arrays, run by run, copied while the previous run is computed.

    Parameters
    ----------
    runs : iterable of sequences of arrays
        Each a run of rows: NumPy arrays, SciPy sparse matrices (made dense) or None (handed
        on). Their number and dtypes may change from run to run.

    Yields
    ------
    list of CuPy arrays
        In the order of the run, C-contiguous, of the same dtypes (bfloat16 as float32, which
        CuPy lacks). They lie in buffers that are used again: work on them is queued on the
        stream that is current at this point, and they are not kept beyond the next run.

    Raises
    ------
    MemoryError
        If two runs do not fit on the GPU; the sentence says how many rows would.
    """
    cupy = require_cupy()
    stream = cupy.cuda.Stream(non_blocking=True)
    slots = itertools.cycle([_Slot(cupy, stream), _Slot(cupy, stream)])
    waiting: _Slot | None = None
    try:
        for run, slot in zip(runs, slots, strict=False):
            slot.send(run)
            if waiting is not None:
                yield from waiting.lend()
            waiting = slot
        if waiting is not None:
            yield from waiting.lend()
    finally:
        stream.synchronize()  # page-locked memory must outlive the copies out of it


def to_device(arrays: Sequence[Any]) -> list[Array | None]:
    """Host arrays as CuPy arrays of their own memory, for the few that outlive a run."""
    cupy = require_cupy()
    return [None if a is None else cupy.asarray(_on_host(a)) for a in arrays]


class _Slot:
    """One pinned buffer, its counterpart on the device, and the events that guard them."""

    def __init__(self, cupy: Any, stream: Any) -> None:
        self.cupy, self.stream = cupy, stream
        self.copied = cupy.cuda.Event(disable_timing=True)
        self.used = cupy.cuda.Event(disable_timing=True)
        self.host = np.empty(0, np.uint8)
        self.device: Array = None
        self.arrays: list[Array | None] = []

    def send(self, run: Sequence[Any]) -> None:
        """Fill the pinned buffer and queue its copy."""
        parts = [_on_host(a) for a in run]
        sizes = [0 if a is None else -(-a.nbytes // ALIGNMENT) * ALIGNMENT for a in parts]
        ends = list(itertools.accumulate(sizes, initial=0))
        self.copied.synchronize()  # the copy out of this buffer two runs ago
        self._grow(ends[-1], max((len(a) for a in parts if a is not None), default=1))
        self.arrays = []
        for a, start in zip(parts, ends, strict=False):
            if a is None:
                self.arrays.append(None)
                continue
            place = slice(start, start + a.nbytes)
            np.copyto(self.host[place].view(a.dtype).reshape(a.shape), a)
            self.arrays.append(self.device[place].view(a.dtype).reshape(a.shape))
        # The device buffer is written when the work on the run two before is done.
        self.stream.wait_event(self.used)
        if ends[-1]:
            self.device[: ends[-1]].set(self.host[: ends[-1]], stream=self.stream)
        self.copied.record(self.stream)

    def _grow(self, size: int, rows: int) -> None:
        if self.host.size >= size:
            return
        import cupyx

        self.arrays, self.device = [], None
        self.device = within_memory(
            lambda: self.cupy.empty(size, dtype=np.uint8), f"a run of {rows} rows", 2 * size / rows
        )
        self.host = cupyx.empty_pinned(size, dtype=np.uint8)
        # The pool may hand out memory that work queued earlier still reads.
        self.used.record(self.cupy.cuda.get_current_stream())

    def lend(self) -> Iterator[list[Array | None]]:
        """Yield the arrays once they have arrived, and note when the work on them is done."""
        self.cupy.cuda.get_current_stream().wait_event(self.copied)
        yield self.arrays
        self.used.record(self.cupy.cuda.get_current_stream())


def _on_host(a: Any) -> np.ndarray[Any, Any] | None:
    if a is None:
        return None
    dense: np.ndarray[Any, Any] = a.toarray() if scipy.sparse.issparse(a) else np.asarray(a)
    return dense.astype(np.float32) if dense.dtype.kind == "V" else dense


def within_memory(work: Callable[[], Result], what: str, row_bytes: float) -> Result:
    """Call ``work()``; when GPU memory runs out, free its pools and raise a MemoryError.

    Parameters
    ----------
    work : callable without arguments
    what : str
        What does not fit, as the subject of the sentence.
    row_bytes : float
        Bytes that one row of it takes.

    Raises
    ------
    MemoryError
        With the number of rows that would fit.
    """
    import cupy

    try:
        return work()
    except cupy.cuda.memory.OutOfMemoryError:
        pass  # with the exception go the frames that hold arrays of the failed call
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()
    free = cupy.cuda.runtime.memGetInfo()[0]
    rows = max(1, int(0.8 * free / row_bytes))
    raise MemoryError(
        f"{what} does not fit on the GPU, which has {free / 2**30:.1f} GiB free: ask for at most "
        f"{rows} rows at a time"
    )
