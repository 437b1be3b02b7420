"""Missing entries of the rows handed to a fitted model."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
from sklearn.base import BaseEstimator

from cmstats.arrays import to_numpy
from cmstats.kernels import whitening
from cmstats.moments.imputation import FilledRows, Filler
from cmstats.moments.moments import Moments
from cmstats.rows.chunks import is_lazy

__all__ = ["Imputing"]


class Imputing(BaseEstimator):
    """Conditional means for missing entries, under the fitted moments."""

    _fillers: dict[str, Filler]
    _target: Any

    @staticmethod
    def _own(moments: Moments) -> Moments:
        """The moments of x and y alone, whose missing entries other blocks must not predict."""
        if not moments.incomplete or moments.names == ("x", "y"):
            return moments
        return moments.select("x", "y")

    @staticmethod
    def _held_out(moments: Moments) -> Moments:
        """What a score is computed on: the complete rows, where there are at least two."""
        complete = moments.complete_rows()
        if complete is None or complete.rows < 2:
            return moments
        return complete

    def _filled(self, rows: Any, view: str) -> Any:
        """Rows of a view with NaN replaced by its conditional mean given the row's entries.

        The conditional mean is that of the fitted moments with the model's own shrinkage, so
        that a linear function of the filled rows is the conditional mean of that function.
        """
        if view not in self._fillers:
            self._fillers[view] = self._filler(view)
        fill = self._fillers[view]
        if is_lazy(rows) or (scipy.sparse.issparse(rows) and np.isnan(np.sum(rows.data))):
            return FilledRows(rows, fill)
        return rows if scipy.sparse.issparse(rows) else fill(rows)

    def _filler(self, view: str) -> Filler:
        """The conditional means of a view's entries, with the shrinkage of the model."""
        m, scale = self._total(), bool(getattr(self, "scale", False))
        s: float = 0.0
        if isinstance(getattr(self, "shrinkage_", None), tuple):
            m = self._own(m).shrunk(self.shrinkage_, scale=scale, target=self._target).unshrunk
            s = self.shrinkage_[m.names.index(view)]
        if s == 0:
            varying = np.count_nonzero(~to_numpy(m.constant(view)))
            if whitening.factor(m.cov(view)).rank < varying:
                s = m.ledoit_wolf(view)  # or the regressions within the view are not unique
        shrunk = m.shrunk((s,) * len(m.names), scale=scale, monotone=False)
        unit = shrunk.units(view)
        return Filler(m.mean(view), unit[:, None] * unit[None, :] * shrunk.cov(view))
