"""The tables of benchmarks/README.md, from the JSON files of the last full runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from benchmarks import _family_figures, _figures
from benchmarks._measure import README, RESULTS, number

HEAD = """# Benchmarks

`python -m benchmarks` runs all suites, `python -m benchmarks cca` one, `--quick` with small
sizes. Results are JSON files in `results/`; this page is made from them and not written by
hand. Times are medians of runs in alternation on a shared machine: read the ratios (median,
smallest and largest of the neighbouring runs).
"""


def lines(results: dict[str, Any]) -> Iterator[str]:
    """A table with one line per measurement."""
    for name, row in results.items():
        yield f"{name}: {_cells(row)}"


def _cells(row: dict[str, Any]) -> str:
    parts = []
    for key, value in row.items():
        if key in ("ratio_min", "ratio_max", "note") or isinstance(value, list):
            continue
        if key == "ratio" and "ratio_min" in row:
            parts.append(
                f"ratio {number(key, value)} ({number(key, row['ratio_min'])} to "
                f"{number(key, row['ratio_max'])})"
            )
        elif isinstance(value, float):
            parts.append(f"{key.replace('_', ' ')} {number(key, value)}")
        else:
            parts.append(f"{key.replace('_', ' ')} {value}")
    return ", ".join(parts)


def rewrite_readme() -> None:
    """Rewrite benchmarks/README.md from the JSON files of full runs."""
    _figures.mnist()
    _figures.few_pairs()
    _family_figures.family()
    pages = [HEAD]
    for path in sorted(RESULTS.glob("*.json")):
        saved = json.loads(path.read_text())
        if saved["quick"]:
            continue
        m = saved["machine"]
        versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
        pages.append(
            f"\n## {saved['suite']}\n\n{m['processor']}, {m['cores']} cores, Python {m['python']}, "
            f"{versions}; {m['date']}.\n\n| measurement | result | note |\n|---|---|---|\n"
        )
        for name, row in saved["results"].items():
            pages.append(f"| {name} | {_cells(row)} | {row.get('note', '')} |\n")
        for figure in sorted(RESULTS.glob(f"{saved['suite']}*.png")):
            pages.append(f"\n![{figure.stem}](results/{figure.name})\n")
    README.write_text("".join(pages))
