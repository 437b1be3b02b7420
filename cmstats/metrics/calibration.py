"""Calibration of class probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from cmstats.arrays import to_numpy

__all__ = ["expected_calibration_error"]


def expected_calibration_error(
    probabilities: Any, labels: Any, *, classes: Any = None, n_bins: int = 15
) -> float:
    r"""How far the confidence of predicted classes is from their accuracy.

    .. math:: \sum_b \frac{n_b}{n} \, | \mathrm{acc}_b - \mathrm{conf}_b |

    over bins of equal width of the largest probability of each row.

    Parameters
    ----------
    probabilities : array of shape (n, n_classes)
        Rows of sum 1.
    labels : array of shape (n,)
        The class of each row, as its column or as one of `classes`.
    classes : array of shape (n_classes,), optional
    n_bins : int, default=15

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If shapes differ, or a label is no class.

    References
    ----------
    Guo, C., Pleiss, G., Sun, Y. and Weinberger, K. Q. (2017). On calibration of modern neural
    networks. ICML.

    Examples
    --------
    >>> from cmstats.metrics import expected_calibration_error
    >>> round(expected_calibration_error([[0.9, 0.1], [0.6, 0.4]], [0, 1]), 2)
    0.35
    """
    p, labels = np.asarray(to_numpy(probabilities), dtype=np.float64), np.asarray(to_numpy(labels))
    if p.ndim != 2 or labels.shape != (len(p),):
        raise ValueError(f"probabilities {p.shape} and labels {labels.shape} do not fit")
    known = np.arange(p.shape[1]) if classes is None else np.asarray(classes)
    unknown = np.setdiff1d(labels, known)
    if len(unknown):
        raise ValueError(f"label {unknown[0]!r} is none of the classes")
    confidence, right = p.max(axis=1), known[p.argmax(axis=1)] == labels
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    gaps = np.bincount(bins, right, n_bins) - np.bincount(bins, confidence, n_bins)
    return float(np.abs(gaps).sum() / len(p))
