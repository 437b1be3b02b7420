"""Compile a loop with Numba, in its cache where there is a folder for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["FAST", "jit"]

FAST = {"reassoc", "contract", "arcp", "nsz"}
"""Floating point operations in any order."""


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit(nogil=True, cache=True, **options)``; without the cache if it has no folder.

    Numba raises RuntimeError where neither the package's folder nor the user's cache folder can
    be written, as in a read-only container.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(nogil=True, **options)(function)

    return compiled
