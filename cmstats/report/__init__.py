"""A report on the relation of two matrices of features, with its uncertainty.

`build` checks the data, chooses the shrinkage and the similarity on the training items alone,
evaluates them on the held-out ones with tests and intervals, lists the pairs that may be wrong
and compares models. The result prints as a table and is written as one self-contained HTML file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmstats import lazy

if TYPE_CHECKING:
    from cmstats.report.analysis import build, build_emoji
    from cmstats.report.report import Report, write_new
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "analysis": ("build", "build_emoji"),
            "report": ("Report", "write_new"),
        },
    )

__all__ = ["Report", "build", "build_emoji", "write_new"]
