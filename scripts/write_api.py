"""Write the API reference, ``notebooks/api.md``, from the `__all__` of the public modules.

Run ``python scripts/write_api.py`` after a public name is added; a test compares.
"""

from __future__ import annotations

import importlib
from pathlib import Path

OUT = Path(__file__).parents[1] / "notebooks" / "api.md"

PAGES = {
    "Models": "cmstats.models",
    "Moments": "cmstats.moments",
    "Rows": "cmstats.rows",
    "Metrics and search": "cmstats.metrics",
    "Inference": "cmstats.inference",
    "Choosing models": "cmstats.model_selection",
    "Trained baselines": "cmstats.baselines",
    "Displays": "cmstats.plotting",
    "Data": "cmstats.datasets",
    "Kernels": "cmstats.kernels",
    "Report": "cmstats.report",
}


KERNELS = ("covariance", "gram", "mixture", "normal", "ranks", "whitening")


def public_names(module: str) -> list[str]:
    """The names that a module promises; of kernels, those of each of its modules."""
    if module != "cmstats.kernels":
        return sorted(importlib.import_module(module).__all__)
    return [
        f"{name}.{entry}"
        for name in KERNELS
        for entry in sorted(importlib.import_module(f"{module}.{name}").__all__)
        if entry.islower()
    ]


def page() -> str:
    """The text of the page."""
    parts = ["# API reference\n", "All public names, by folder; what is in `cmstats.X` for the"]
    parts[-1] += " names of everyday use is importable from `cmstats` itself.\n"
    for title, module in PAGES.items():
        summary = (importlib.import_module(module).__doc__ or "").strip().partition("\n")[0]
        names = "\n".join(public_names(module))
        parts.append(
            f"## {title}: `{module}`\n\n{summary}\n\n"
            f"```{{eval-rst}}\n.. currentmodule:: {module}\n\n"
            ".. autosummary::\n   :toctree: generated\n\n"
            + "\n".join(f"   {name}" for name in names.split())
            + "\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    OUT.write_text(page())
