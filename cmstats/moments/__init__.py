"""Moments: collected from rows once; merged, folded, completed, shrunk and partialled out."""

from cmstats.moments.moments import Moments, Whitened

__all__ = ["Moments", "Whitened"]
