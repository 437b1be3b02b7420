"""What a fit costs: seconds, peak memory, numbers kept, and how the time grows with the rows."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from cmstats.arrays import device_of, is_array

__all__ = ["PeakMemory", "count_parameters", "device_name", "growth", "timed"]

MIB = 1 << 20


def _synchronize() -> None:
    """Wait for the GPU: its calls return before their work is done."""
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if cupy is not None:
        with contextlib.suppress(cupy.cuda.runtime.CUDARuntimeError):  # CuPy without a device
            cupy.cuda.get_current_stream().synchronize()


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What `call` returns, and its wall-clock seconds."""
    _synchronize()
    begin = time.perf_counter()
    out = call()
    _synchronize()
    return out, time.perf_counter() - begin


class PeakMemory:
    """The extra memory at the peak of a block, in MiB, as `mb` after it.

    The largest of what three instruments see, each of which sees a part only: `tracemalloc` the
    arrays of NumPy; the growth of the resident memory (on Linux, sampled every 5 ms) those of
    all other libraries on the CPU; torch and CuPy their memory on a GPU. Memory that a library
    holds free from before counts in none of them but the first.
    """

    mb: float = 0.0

    def __enter__(self) -> Self:
        self._begun = not tracemalloc.is_tracing()
        if self._begun:
            tracemalloc.start()
        tracemalloc.reset_peak()
        self._traced = tracemalloc.get_traced_memory()[0]
        self._device = _device_bytes(reset=True)
        self._resident = self._highest = _resident_bytes()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self._highest = max(self._highest, _resident_bytes())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._sampler.join()
        traced = tracemalloc.get_traced_memory()[1] - self._traced
        if self._begun:
            tracemalloc.stop()
        grown = max(self._highest, _resident_bytes()) - self._resident
        device = _device_bytes() - self._device
        self.mb = max(traced, grown, device, 0) / MIB


def _resident_bytes() -> int:
    """The resident memory of this process; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0


def _device_bytes(*, reset: bool = False) -> int:
    """Bytes in use on the GPU now (`reset`), or at most since then; CuPy tells no peak."""
    total = 0
    torch, cupy = sys.modules.get("torch"), sys.modules.get("cupy")
    if torch is not None and torch.cuda.is_initialized():
        if reset:
            torch.cuda.reset_peak_memory_stats()
        total += torch.cuda.memory_allocated() if reset else torch.cuda.max_memory_allocated()
    if cupy is not None:
        total += cupy.get_default_memory_pool().total_bytes()
    return int(total)


def device_name(model: Any, array: Any) -> str:
    """Where a model works: its own word, or the device of what it returned."""
    own = getattr(model, "device_", None)
    if own is None and is_array(array):
        own = device_of(array)
    return "cpu" if own is None else str(own).lower().replace("cpu_device", "cpu")


# ------------------------------------------------------------------ numbers a model keeps
_SUMMARIES = frozenset((
    "correlations_", "singular_values_", "eigenvalues_", "explained_variance_ratio_",
    "pairwise_correlations_", "alpha_", "shrinkage_", "class_prior_", "classes_",
    "task_n_samples_", "moments_", "lower_bounds_", "x_means_", "y_means_", "feature_names_in_",
    "y_feature_names_in_", "x_loadings_", "y_loadings_", "bands_", "loss_curve_",
))  # fmt: skip
_COMPUTED = ("coef_", "intercept_", "covariance_")


def count_parameters(model: Any) -> int:
    """How many numbers a fitted model keeps to do its work.

    Its own `n_parameters_` if it has one, the parameters of torch modules, and otherwise the
    entries of its fitted arrays (names that end with an underscore) and those of its parts;
    summaries such as correlations and scores of a search do not count.
    """
    return _count(model, set())


def _count(value: Any, seen: set[int]) -> int:
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None), type)):
        return 0
    seen.add(id(value))
    if is_array(value):
        inexact = "float" in str(value.dtype)
        return int(np.prod(value.shape)) if inexact and value.ndim else 0
    if isinstance(value, dict):
        return sum(_count(v, seen) for v in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_count(v, seen) for v in value)
    own = getattr(value, "n_parameters_", None)
    if own is not None:
        return int(own)
    if callable(getattr(value, "parameters", None)) and hasattr(value, "state_dict"):
        return sum(int(p.numel()) for p in value.parameters())
    if not hasattr(value, "get_params"):
        return 0
    names = [name for name in vars(value) if name.endswith("_") and not name.startswith("_")]
    kept = [n for n in names if n not in _SUMMARIES and not n.startswith(("cv_", "best_", "n_"))]
    if hasattr(value, "best_estimator_"):
        kept = ["best_estimator_"]
    computed = [n for n in _COMPUTED if n not in names and hasattr(type(value), n)]
    steps = [step for _, step in getattr(value, "steps", [])]  # of a scikit-learn pipeline
    return _count([*(getattr(value, n) for n in [*kept, *computed]), *steps], seen)


# -------------------------------------------------------------------------------- growth
def growth(fit: Callable[[int], Any], sizes: Sequence[int]) -> float:
    """The exponent a of seconds = c n^a: the slope of log seconds over log n.

    Each size is fitted up to three times within a quarter of a second, and the fastest counts.
    """
    best = []
    for n in sizes:
        spent = [timed(lambda n=n: fit(n))[1]]  # type: ignore[misc]
        while len(spent) < 3 and sum(spent) < 0.25:
            spent.append(timed(lambda n=n: fit(n))[1])  # type: ignore[misc]
        best.append(min(spent))
    return float(np.polyfit(np.log(sizes), np.log(best), 1)[0])
