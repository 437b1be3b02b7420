"""Alternating timings, memory of a separate process, and results as JSON and tables."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"

Rows = dict[str, dict[str, Any]]
"""Measurements: a name and its values."""


class NotRun(Exception):
    """The reason why a suite cannot run here."""


_once = False


def once() -> None:
    """Time every call once and without rest from now on, for quick runs."""
    global _once
    _once = True


def seconds(run: Callable[[], object]) -> float:
    # After a call the threads of BLAS spin for tens of milliseconds and occupy the cores.
    time.sleep(0 if _once else 0.2)
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def ratio(
    run: Callable[[], object], base: Callable[[], object], *, repeats: int = 5
) -> dict[str, float]:
    """Time `run` and `base` alternately: the medians of both and of their ratio, with its range.

    On a shared machine only the ratio of neighbours in time means something.
    """
    if not _once:
        run(), base()  # warm caches and compiled code
    pairs = [(seconds(run), seconds(base)) for _ in range(1 if _once else repeats)]
    ratios = sorted(a / b for a, b in pairs)
    return {
        "seconds": statistics.median(a for a, _ in pairs),
        "base_seconds": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(ratios),
        "ratio_min": ratios[0],
        "ratio_max": ratios[-1],
    }


def peak_memory(code: str, *arguments: str) -> dict[str, float]:
    """Run code in a separate process, which prints its measurements as JSON.

    The code calls ``before = resident()`` before and ``peak()`` after what is measured, both in
    MiB; the first starts the peak anew (on Linux).
    """
    prelude = textwrap.dedent(
        """
        import json, pathlib, sys, time
        def status(key):
            for line in pathlib.Path("/proc/self/status").read_text().splitlines():
                if line.startswith(key):
                    return int(line.split()[1]) / 1024
        def resident():
            pathlib.Path("/proc/self/clear_refs").write_text("5")
            return status("VmRSS")
        def peak():
            return status("VmHWM")
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", prelude + code, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    out: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return out


def machine() -> dict[str, Any]:
    packages = ("numpy", "scipy", "scikit-learn", "numba", "cca-zoo", "himalaya", "gmr", "torch")
    versions = {}
    for name in packages:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def number(key: str, value: float) -> str:
    """A number as readers of tables expect it: .500 for a share, 230 for seconds.

    Shares and ranks' reciprocals have three digits and no zero before the point; everything else
    three significant digits (seconds two), without an exponent from 0.0001 to 1e12.
    """
    if any(share in key for share in ("R@", "MRR", "mAP")):
        text = f"{value:.3f}".replace("-0.000", "0.000")
        return text.replace("0.", ".", 1) if abs(value) < 1 else text
    digits = 2 if key == "short seconds" else 3
    if value and 1e-4 <= abs(value) < 1e12:
        return f"{float(f'{value:.{digits}g}'):.15g}"
    return f"{value:.{digits}g}"


def saved(suite: str) -> Rows:
    """The results of the last full run of a suite; empty if there is none."""
    path = RESULTS / f"{suite}.json"
    return json.loads(path.read_text())["results"] if path.exists() else {}


class Results:
    """The results of one suite on this machine: written after every measurement.

    Rows of the file stay until they are measured again, so that a run which is cut off loses
    nothing; what a whole run did not measure any more goes at its end. Quick runs have a file of
    their own, and a file of another machine is begun anew.
    """

    def __init__(self, suite: str, *, quick: bool = False) -> None:
        RESULTS.mkdir(exist_ok=True)
        self.path = RESULTS / (f"{suite}-quick.json" if quick else f"{suite}.json")
        self._file: dict[str, Any] = {"suite": suite, "quick": quick, "machine": machine()}
        self._file["results"] = self._saved()
        self._measured: list[str] = []

    def _saved(self) -> Rows:
        if not self.path.exists():
            return {}
        saved = json.loads(self.path.read_text())
        same = all(saved["machine"][k] == self._file["machine"][k] for k in ("processor", "cores"))
        return saved["results"] if same else {}

    def add(self, rows: Rows) -> None:
        """Save rows, replacing those of the same names."""
        self._measured += rows
        self._file["results"] |= rows
        self._write()

    def finish(self) -> None:
        """Keep only the rows that were added, in their order."""
        self._file["results"] = {name: self._file["results"][name] for name in self._measured}
        self._write()

    def _write(self) -> None:
        text = json.dumps(self._file, indent=2, default=float) + "\n"
        whole = self.path.with_suffix(".part")
        whole.write_text(text)
        whole.replace(self.path)
