"""A model of a test file goes through every property by one entry."""

from __future__ import annotations

from cmstats import CCA

from .properties import *  # noqa: F403
from .registry import KINDS, Model


class OwnCCA(CCA):
    """A model that the registry does not know."""


MODELS = [Model("own", OwnCCA, main=True, kinds=KINDS)]
