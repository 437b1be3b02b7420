"""Baselines to measure classical models against: two that are trained, one that is not.

`DeepCCA` and `ContrastiveAligner` are trained with torch (``pip install "cmstats[deep]"``),
which they import when they are fitted; `ASIF` needs no training and no torch.
"""

from cmstats.baselines.asif import ASIF
from cmstats.baselines.contrastive import ContrastiveAligner
from cmstats.baselines.deep_cca import DeepCCA

__all__ = ["ASIF", "ContrastiveAligner", "DeepCCA"]
