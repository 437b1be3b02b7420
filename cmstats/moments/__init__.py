"""Moments: collected from rows once; merged, folded, completed, shrunk and partialled out."""

from cmstats.moments.moments import Moments
from cmstats.moments.shrinkage import Shrunk
from cmstats.moments.whitened import Whitened

__all__ = ["Moments", "Shrunk", "Whitened"]
