"""One page about two matrices of features: what they share, and how sure that is.

`build` looks the data over, chooses the shrinkage and the similarity on the training items
alone, judges them on the held-out ones with tests and intervals, names the pairs that may be
wrong and compares models; the result prints as a table and writes itself as one HTML file that
needs nothing else.
"""

from cmstats.report.building import build, build_emoji
from cmstats.report.result import Report, write_new

__all__ = ["Report", "build", "build_emoji", "write_new"]
