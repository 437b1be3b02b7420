"""The layers of a linear autoencoder, and the units of its loss."""

from __future__ import annotations

from dataclasses import dataclass

from cmstats.arrays import Array, namespace
from cmstats.kernels.linalg import signs
from cmstats.models.reduced_rank import LinearCode, one_view_weights
from cmstats.moments.moments import Moments

__all__ = ["Layers", "LossUnits"]

ENDS = {"self": ("x", "x"), "cross": ("x", "y"), "joint": ("z", "z")}
"""The blocks that are encoded and decoded, by target; "z" is x and y side by side."""


@dataclass(frozen=True)
class LossUnits:
    """What columns are divided by for the loss.

    Attributes
    ----------
    target : {"self", "cross", "joint"}
    unit : array of shape (d,)
        For the columns of x, or of x and y side by side.
    constant : array of shape (d,)
        Which columns do not vary.
    width : int
        The number of columns of x.
    notes : tuple of str
        Sentences about columns that cannot be scaled.
    """

    target: str
    unit: Array
    constant: Array
    width: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, moments: Moments, target: str, *, scale: bool) -> LossUnits:
        """Standard deviations with `scale`; of a view for "joint", the root of its variance."""
        names = ("x",) if target == "self" else ("x", "y")
        m = moments if moments.names == names else moments.select(*names)
        xp = namespace(m.mean("x"))
        units, notes = [], []
        for name in names:
            variance = xp.where(m.constant(name), 0.0, m.variance(name, ddof=0))
            one = xp.ones_like(variance)
            std = xp.sqrt(xp.where(variance > 0, variance, one)) if scale else one
            if scale and (count := int(xp.count_nonzero(variance == 0))):
                first = int(xp.argmax(xp.astype(variance == 0, xp.int8)))
                notes.append(
                    f"{count} of the columns of {name} {'is' if count == 1 else 'are'} constant "
                    f"(the first is {m.label(name, first)}) and cannot be scaled: weight 0"
                )
            total = float(xp.sum(variance / std**2))
            units.append(std * (total or 1.0) ** 0.5 if target == "joint" else std)
        constant = xp.concat([m.constant(name) for name in names])
        return cls(target, xp.concat(units), constant, m.width("x"), tuple(notes))

    @property
    def blocks(self) -> tuple[str, ...]:
        """The views that the loss is of."""
        return ("x",) if self.target == "self" else ("x", "y")

    @property
    def ends(self) -> tuple[str, str]:
        """The block that is encoded, and the one that is decoded."""
        return ENDS[self.target]

    def cut(self, block: str) -> slice:
        """The columns of a block: of x, of y, or of "z", both of them."""
        return {"x": slice(0, self.width), "y": slice(self.width, None), "z": slice(None)}[block]

    def moments(self, moments: Moments, *, training: bool = False) -> Moments:
        """Moments in the units of the loss, with x and y as one block "z" for "joint".

        In training, columns that do not vary are set to 0: their rounding noise is no data.
        """
        m = moments if moments.names == self.blocks else moments.select(*self.blocks)
        xp, unit = namespace(self.unit), self.unit
        m = m.scaled(1 / (xp.where(self.constant, float("inf"), unit) if training else unit))
        return m.relabelled({"z": sum(m.widths)}) if self.target == "joint" else m


@dataclass(frozen=True)
class Layers:
    """A fitted linear autoencoder.

    Attributes
    ----------
    units : LossUnits
    encode, decode : arrays of shape (k, p), (q, k)
        The layers in the units of the loss.
    encoder_, decoder_ : arrays of the same shapes
        The layers in the units of the data; the largest absolute weight of each component of the
        encoder is positive.
    explained_variance_ratio_ : array of shape (k,)
    n_components_ : int
    condition_ : float
    x_mean_, y_mean_ : arrays of shape (p,), (q,)
    shrinkage_ : float or None
        Of the joint normal that the weights of one view rest on, for "joint".
    x_weights_, y_weights_ : arrays of shape (p, k), (q, k), or None
        The code of one view alone, for "joint".
    notes : tuple of str
        Sentences about degenerate data.
    """

    units: LossUnits
    encode: Array
    decode: Array
    encoder_: Array
    decoder_: Array
    explained_variance_ratio_: Array
    n_components_: int
    condition_: float
    x_mean_: Array
    y_mean_: Array | None = None
    shrinkage_: float | None = None
    x_weights_: Array | None = None
    y_weights_: Array | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        moments: Moments,
        units: LossUnits,
        loss: Moments,
        code: LinearCode,
        notes: tuple[str, ...],
    ) -> Layers:
        """The layers of a code of `loss`, the moments in the units of the loss."""
        source, sink = units.ends
        xp, unit_in = namespace(code.encode), units.unit[units.cut(source)]
        W = code.encode / unit_in[None, :]
        sign = signs(W.mT)[:, None]
        encode, decode = sign * code.encode, sign.mT * code.decode
        columns = code.encode.mT
        shared = xp.sum(code.decode * loss.projected_scatter(sink, source, columns), axis=0)
        own = xp.sum(columns * loss.projected_scatter(source, source, columns), axis=0)
        # The columns of the decoder are orthogonal, so the components add up.
        explained = 2 * shared - xp.sum(decode * decode, axis=0) * own
        total = float(xp.sum(loss.variance(sink, ddof=0))) * loss.n
        joint: dict[str, Array] = {}
        shrinkage = None
        if units.target == "joint":
            # The fourth moments of the balanced views together are not known: this is OAS.
            shrinkage = loss.ledoit_wolf("z")
            views = loss.relabelled({view: moments.width(view) for view in units.blocks})
            for view, weights in one_view_weights(views, encode, shrinkage).items():
                joint[f"{view}_weights_"] = weights / units.unit[units.cut(view), None]
        return cls(
            units,
            encode,
            decode,
            encoder_=encode / unit_in[None, :],
            decoder_=decode * units.unit[units.cut(sink), None],
            explained_variance_ratio_=explained / (total or 1.0),
            n_components_=int(encode.shape[0]),
            condition_=code.condition,
            x_mean_=moments.mean("x"),
            y_mean_=None if units.target == "self" else moments.mean("y"),
            shrinkage_=shrinkage,
            notes=notes,
            **joint,
        )

    def mean(self, view: str) -> Array:
        """The training mean of a view."""
        found: Array = getattr(self, f"{view}_mean_")
        return found

    def weights(self, view: str, *, alone: bool) -> Array:
        """What the centred rows of a view are multiplied by, `alone` or as one of both views."""
        if self.units.target == "joint" and alone:
            found: Array = getattr(self, f"{view}_weights_")
            return found
        return self.encoder_[:, self.units.cut(view)].mT

    def decoder(self, view: str) -> Array:
        """The rows of the decoder that give a view."""
        joint = self.units.target == "joint"
        return self.decoder_[self.units.cut(view), :] if joint else self.decoder_

    def explained(self, moments: Moments) -> float:
        """The share of variance explained on held-out moments; NaN where nothing varies."""
        m, (source, sink) = self.units.moments(moments), self.units.ends
        E, D = self.encode, self.decode
        xp = namespace(m.mean(source), E)
        total = float(xp.sum(m.variance(sink, ddof=0))) * m.n
        if not total > 0:
            return float("nan")
        columns = E.mT
        shared = float(xp.sum(D * m.projected_scatter(sink, source, columns)))
        codes = E @ m.projected_scatter(source, source, columns)
        decoded = float(xp.sum(codes * (D.mT @ D)))
        residual = total - 2 * shared + decoded + m.n * self._bias(moments)
        return 1 - residual / total

    def _bias(self, moments: Moments) -> float:
        """The square of the mean residual, in the units of the loss."""
        xp = namespace(self.encode)
        shifts = [moments.mean(view) - self.mean(view) for view in self.units.blocks]
        shift = xp.concat(shifts) / self.units.unit
        given, wanted = (shift[self.units.cut(block)] for block in self.units.ends)
        mean = wanted - self.decode @ (self.encode @ given)
        return float(xp.sum(mean * mean))
