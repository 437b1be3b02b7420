"""The network of one view, written once: training differentiates what prediction computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from cmstats.arrays import Array, namespace
from cmstats.rows.chunks import project

__all__ = ["Activation", "Encoder", "Layer", "forward", "layer_shapes"]

Activation = Literal["relu", "tanh"]
Layer: TypeAlias = tuple[Array, Array]
"""A matrix of shape (inputs, outputs), and a bias."""


def layer_shapes(width: int, hidden: tuple[int, ...], outputs: int) -> list[tuple[int, int]]:
    """Shapes of the matrices of a network from `width` features to `outputs`.

    With hidden layers the first matrix has `outputs` more columns: the linear path beside
    them.
    """
    if not hidden:
        return [(width, outputs)]
    first = (width, hidden[0] + outputs)
    return [first, *zip(hidden, (*hidden[1:], outputs), strict=True)]


def forward(
    first: Array,
    layers: list[Layer],
    activation: Activation,
    drop: Callable[[Array], Array] = lambda a: a,
) -> Array:
    """The outputs, from those of the first matrix: hidden layers plus a linear path."""
    if not layers:
        return first
    width = layers[0][0].shape[0]
    h, straight = first[:, :width], first[:, width:]
    xp = namespace(h)
    for weights, bias in layers:
        h = xp.tanh(h) if activation == "tanh" else h * xp.astype(h > 0, h.dtype)
        h = drop(h) @ weights + bias
    return h + straight


@dataclass
class Encoder:
    """A fitted network, in plain arrays of the library of the training data.

    The units of the features are in its first matrix: it takes the data as they are.
    """

    mean: Array
    first: Layer
    layers: list[Layer]
    activation: Activation

    def __call__(self, rows: Any, name: str) -> Array:
        """Outputs for the rows of view `name`, in their precision."""
        weights, bias = self.first
        h = project(rows, self.mean, weights, name)
        xp = namespace(h)
        layers = [(xp.astype(w, h.dtype), xp.astype(b, h.dtype)) for w, b in self.layers]
        return forward(h + xp.astype(bias, h.dtype), layers, self.activation)

    @property
    def n_parameters(self) -> int:
        """Entries of all matrices and biases."""
        return sum(int(w.shape[0] * w.shape[1] + b.shape[0]) for w, b in (self.first, *self.layers))
