"""Sharing work among threads."""

from __future__ import annotations

import threading
import warnings

import numpy as np

from cmstats.kernels.threads import cores, run_tasks


def test_what_the_caller_ignores_is_ignored_in_every_thread() -> None:
    gate = threading.Barrier(min(cores(), 2), timeout=20)

    def task() -> None:
        gate.wait()  # each task on a thread of its own
        np.subtract(np.inf, np.full(3, np.inf))

    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        warnings.simplefilter("error")
        run_tasks([task] * min(cores(), 2))
