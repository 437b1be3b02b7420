"""Fits that leave an estimator as it was where they fail."""

from __future__ import annotations

from typing import ClassVar, Self

from sklearn.base import BaseEstimator

__all__ = ["CopyFitted"]


class CopyFitted(BaseEstimator):
    """An estimator whose `fit` works on a copy.

    The copy has no fitted attributes (`_unfitted`), and the estimator becomes it when everything
    has succeeded (`_become`): a fit that fails or is interrupted leaves the estimator as it was.
    """

    _private: ClassVar[frozenset[str]] = frozenset()
    """Fitted attributes without the underscore at the end that marks public ones."""

    def _unfitted(self) -> Self:
        """A copy of the parameters and settings, for a fit to write on."""
        new = object.__new__(type(self))
        fitted = {name for name in vars(self) if name.endswith("_") or name in self._private}
        new.__dict__.update({k: v for k, v in vars(self).items() if k not in fitted})
        return new

    def _become(self, fitted: Self) -> Self:
        """Take over everything that another estimator of this class holds."""
        self.__dict__ = fitted.__dict__
        return self
