"""transfer.py with a GPU made of NumPy whose streams run as late as their events allow.

Work queued on a fake stream is done when something waits for it and not before, so a buffer
that is filled or written to too early shows as a wrong number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from cmstats.kernels.transfer import require_cupy, to_device, upload, within_memory

pytestmark = pytest.mark.usefixtures("two_threads")


# ----------------------------------------------------------------------------- the fake
class Event:
    def __init__(self, disable_timing: bool = False) -> None:
        self.stream: Stream | None = None
        self.position = 0

    def record(self, stream: Stream) -> None:
        self.stream, self.position = stream, stream.queued

    def synchronize(self) -> None:
        if self.stream is not None:
            self.stream.run_to(self.position)


class Stream:
    """A queue of work that is done in its order, when it has to be."""

    def __init__(self, non_blocking: bool = False) -> None:
        self.queue: list[Callable[[], None]] = []
        self.queued = 0
        self.ptr = 0

    def push(self, work: Callable[[], None]) -> None:
        self.queue.append(work)
        self.queued += 1

    def run_to(self, position: int) -> None:
        while self.queued - len(self.queue) < position:
            self.queue.pop(0)()

    def synchronize(self) -> None:
        self.run_to(self.queued)

    def wait_event(self, event: Event) -> None:
        stream, position = event.stream, event.position
        if stream is not None:
            self.push(lambda: stream.run_to(position))


class DeviceArray(np.ndarray):  # type: ignore[type-arg]
    def set(self, a: Any, stream: Stream) -> None:
        assert a.shape == self.shape
        assert a.dtype == self.dtype
        stream.push(lambda: np.copyto(self, a))


class OutOfMemoryError(MemoryError):
    pass


class Gpu:
    """What the fake CuPy keeps: the current stream, free memory, live allocations."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.current, self.room, self.allocated = Stream(), room, 0
        self.pools_freed = 0

    def empty(self, size: int, dtype: Any) -> Any:
        if self.allocated + size > self.room:
            raise OutOfMemoryError
        self.allocated += size
        a = np.empty(size, dtype).view(DeviceArray)
        a[...] = 255
        return a

    def free(self) -> None:
        self.pools_freed += 1


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    gpu = Gpu()
    cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
    pool = SimpleNamespace(free_all_blocks=gpu.free)
    fake: dict[str, Any] = {
        "empty": gpu.empty,
        "get_default_memory_pool": lambda: pool,
        "get_default_pinned_memory_pool": lambda: pool,
        "cuda": SimpleNamespace(
            is_available=lambda: True,
            Stream=Stream,
            Event=Event,
            get_current_stream=lambda: gpu.current,
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            runtime=SimpleNamespace(memGetInfo=lambda: (gpu.room, gpu.room)),
        ),
    }
    for name, value in fake.items():
        setattr(cupy, name, value)
    cupyx.empty_pinned = np.empty  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    return gpu


def runs(sizes: list[int], log: list[str] | None = None) -> Iterator[list[Any]]:
    for number, n in enumerate(sizes):
        if log is not None:
            log.append(f"read {number}")
        rng = np.random.default_rng(number)
        yield [
            rng.normal(size=(n, 3)).astype(np.float32),
            rng.integers(0, 9, (n, 2)),
            None if number % 2 else rng.random(n),
        ]


# -------------------------------------------------------------------------------- tests
# Growing and shrinking runs; the last of an uneven cut is short.
@pytest.mark.parametrize("sizes", [[5], [7, 7, 7, 7, 2], [1, 9, 3, 40, 40, 1, 17]])
def test_what_arrives_is_what_was_sent(gpu: Gpu, sizes: list[int]) -> None:
    seen: list[list[Any]] = []
    for arrays in upload(runs(sizes)):
        # Work on the arrays is queued, and done as late as can be.
        gpu.current.push(
            lambda arrays=arrays: seen.append([None if a is None else a.copy() for a in arrays])
        )
    gpu.current.synchronize()
    assert len(seen) == len(sizes)
    for found, sent in zip(seen, runs(sizes), strict=True):
        for a, b in zip(found, sent, strict=True):
            if b is None:
                assert a is None
            else:
                assert a.dtype == b.dtype
                np.testing.assert_array_equal(a, b)


def test_the_next_run_is_on_its_way_while_one_is_at_work(gpu: Gpu) -> None:
    log: list[str] = []
    for number, _ in enumerate(upload(runs([4] * 4, log))):
        log.append(f"work {number}")
    assert log == [
        *("read 0", "read 1", "work 0", "read 2", "work 1"),
        *("read 3", "work 2", "work 3"),
    ]


def test_two_buffers_serve_any_number_of_runs(gpu: Gpu) -> None:
    for _ in upload(runs([50] * 20)):
        pass
    one_run = sum(-(-a.nbytes // 512) * 512 for a in next(runs([50])))
    assert gpu.allocated <= 2 * one_run


def test_sparse_rows_arrive_dense_and_empty_streams_are_empty(gpu: Gpu) -> None:
    S = scipy.sparse.random(6, 4, 0.5, format="csr", random_state=0)
    (arrays,) = ([a.copy() for a in arrays] for arrays in _arrived(gpu, [[S]]))
    np.testing.assert_array_equal(arrays[0], S.toarray())
    assert list(upload([])) == []


def test_single_arrays_keep_their_own_memory(gpu: Gpu) -> None:
    sys.modules["cupy"].asarray = lambda a: np.array(a).view(DeviceArray)  # type: ignore[attr-defined]
    S = scipy.sparse.random(6, 4, 0.5, format="csr", random_state=0)
    found = to_device([S, None, [[1.0]]])
    np.testing.assert_array_equal(found[0], S.toarray())
    assert found[1] is None
    assert isinstance(found[2], DeviceArray)


def _arrived(gpu: Gpu, source: list[list[Any]]) -> Iterator[list[Any]]:
    for arrays in upload(source):
        gpu.current.synchronize()
        yield arrays


def test_stopping_half_way_waits_for_the_copies(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    streams: list[Stream] = []
    monkeypatch.setattr(
        sys.modules["cupy"].cuda, "Stream", lambda **_: streams.append(Stream()) or streams[0]
    )
    stream = upload(runs([4] * 5))
    next(stream)
    stream.close()
    assert streams[0].queue == []


def test_memory_that_runs_out_says_how_many_rows_would_fit(gpu: Gpu) -> None:
    gpu.room = 10_000
    with pytest.raises(MemoryError, match=r"a run of 1000 rows .* at most \d+ rows") as info:
        list(upload([[np.zeros((1000, 8))]]))
    rows = int(str(info.value).split("at most ")[1].split()[0])
    assert 1 <= rows < 10_000 / 64
    assert gpu.pools_freed == 2
    list(upload([[np.zeros((rows // 2, 8))]] * 3))  # and the device is still of use


def test_the_arrays_of_a_call_that_failed_are_let_go(gpu: Gpu) -> None:
    import weakref

    held: list[Any] = []

    def work() -> None:
        big = gpu.empty(100, np.uint8)
        held.append(weakref.ref(big))
        gpu.empty(gpu.room, np.uint8)

    freed_at: list[bool] = []
    gpu.free = lambda: freed_at.append(held[0]() is None)  # type: ignore[method-assign]
    pool = SimpleNamespace(free_all_blocks=lambda: gpu.free())
    sys.modules["cupy"].get_default_memory_pool = lambda: pool  # type: ignore[attr-defined]
    with pytest.raises(MemoryError, match="a block of 9 rows does not fit on the GPU"):
        within_memory(work, "a block of 9 rows", 100)
    assert freed_at[0]


def test_other_errors_pass_through(gpu: Gpu) -> None:
    with pytest.raises(ZeroDivisionError):
        within_memory(lambda: 1 / 0, "nothing", 1)
    assert gpu.pools_freed == 0


def test_a_missing_cupy_or_gpu_is_said(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="device must be None, 'cpu' or 'cuda', got 'tpu'"):
        require_cupy("tpu")
    monkeypatch.setattr(sys.modules["cupy"].cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="CuPy finds none"):
        require_cupy()
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match="cmstats"):
        require_cupy()
