"""The deep baselines' parameters, their training and what it leaves behind."""

from __future__ import annotations

import importlib
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import array_api_compat
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from cmstats.arrays import Array, warn
from cmstats.baselines.encoder import Activation, Encoder
from cmstats.baselines.two_view import TwoViewBaseline

__all__ = ["DeepBaseline"]


class DeepBaseline(TwoViewBaseline):
    """A network for each view, trained on pairs with torch."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden": [tuple, list],
        "activation": [StrOptions({"relu", "tanh"})],
        "scale": ["boolean"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "refit": ["boolean"],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    _private = TwoViewBaseline._private | {"_epochs"}

    n_components: int
    hidden: tuple[int, ...]
    activation: Activation
    scale: bool
    dropout: float
    learning_rate: float
    weight_decay: float
    batch_size: int
    max_epochs: int
    validation_fraction: float
    patience: int
    refit: bool
    device: Any
    verbose: bool
    random_state: Any

    def _objective(self, training: Any, device: Any) -> Any:
        """A new objective, out of the module that knows torch."""
        raise NotImplementedError

    def _finish(self, outcome: Any, X: Any, y: Any) -> None:
        """Set the fitted attributes that follow from the trained networks."""
        raise NotImplementedError

    def fit(self, X: Any, y: Any) -> Self:
        """Train on paired rows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            The first view: an array of any library, a frame, or a memory-map, which is read
            into memory. Sparse rows become dense a batch at a time.
        y : array-like or sparse matrix of shape (n_samples, n_targets) or (n_samples,)
            The second view; row i is the partner of row i of `X`.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If torch is not installed.
        ValueError
            If values are not finite, lengths differ, there is only one row, a parameter is
            out of range, or there is no such device.
        """
        self._validate_params()
        new = self._unfitted()
        notes = new._fit(*new._training_rows(X, y))
        self._become(new)
        for note, category in notes:
            warn(note, category)
        return self

    def _fit(self, X: Any, y: Any) -> list[tuple[str, type[Warning]]]:
        """Train on checked rows; return what there is to warn of."""
        training = self._import_training()
        self.device_ = self._training_device(training.torch, X)
        seed = int(check_random_state(self.random_state).randint(2**31 - 8))
        views = [training.Rows(a, scale=self.scale, device=self.device_) for a in (X, y)]
        plan = self._plan(training, X.shape[0], seed)
        outcome = training.train(*views, plan, lambda: self._objective(training, self.device_))
        self._remember(outcome)
        self.x_encoder_, self.y_encoder_ = (
            network.fitted(rows, like)
            for network, rows, like in zip(outcome.networks, views, _likes(X, y), strict=True)
        )
        self.n_parameters_ = self.x_encoder_.n_parameters + self.y_encoder_.n_parameters
        self._finish(outcome, X, y)
        self.device_ = str(self.device_)
        return self._notes(outcome, views)

    def _import_training(self) -> Any:
        try:
            return importlib.import_module("cmstats.baselines.training")
        except ImportError as error:
            raise ImportError(
                f"{type(self).__name__} is trained with torch, which could not be imported "
                f'({error}): pip install "cmstats[deep]"'
            ) from error

    def _training_device(self, torch: Any, X: Any) -> Any:
        if self.device is None:
            return X.device if array_api_compat.is_torch_array(X) else torch.device("cpu")
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError):
            raise ValueError(
                f"device={self.device!r} is no device of torch: use 'cpu', 'cuda', 'cuda:1' or None"
            ) from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(
                f"device={self.device!r}, but torch finds no CUDA device here: use device='cpu'"
            )
        return device

    def _plan(self, training: Any, n: int, seed: int) -> Any:
        names = (
            "activation", "scale", "dropout", "learning_rate", "weight_decay", "batch_size",
            "max_epochs", "validation_fraction", "patience", "refit",
        )  # fmt: skip
        return training.Plan(
            hidden=tuple(self.hidden),
            outputs=self._outputs(n),
            device=self.device_,
            verbose=bool(self.verbose),
            seed=seed,
            **{name: getattr(self, name) for name in names},
        )

    def _outputs(self, n: int) -> int:
        """The width of the networks' outputs, for n training rows."""
        return self.n_components

    def _remember(self, outcome: Any) -> None:
        if outcome.diverged and not outcome.best_epoch:
            raise ValueError(
                "the loss was not finite after the first epoch of training: lower learning_rate"
            )
        self._epochs = {"loss": outcome.losses, "validation_score": outcome.scores}
        self.n_iter_ = len(outcome.losses)
        self.best_epoch_ = int(outcome.best_epoch)
        self.best_score_ = max(outcome.scores, default=float("nan"))

    @property
    def history_(self) -> Any:
        """The loss and the validation score of each epoch, a DataFrame."""
        import pandas as pd

        if not hasattr(self, "_epochs"):
            raise AttributeError("history_ is of a trained model: call fit first")
        epochs = pd.RangeIndex(1, self.n_iter_ + 1, name="epoch")
        columns = {
            name: pd.Series(each, index=epochs[: len(each)], dtype=float)
            for name, each in self._epochs.items()
        }
        return pd.DataFrame(columns, index=epochs)

    def _notes(self, outcome: Any, views: list[Any]) -> list[tuple[str, type[Warning]]]:
        notes: list[tuple[str, type[Warning]]] = []
        if outcome.diverged:
            notes.append(
                (
                    f"the loss was not finite in epoch {self.n_iter_}: the weights are those of "
                    f"epoch {self.best_epoch_}; lower learning_rate",
                    ConvergenceWarning,
                )
            )
        if outcome.improving:
            notes.append(
                (
                    f"the validation score was still rising at max_epochs={self.max_epochs}: raise "
                    "max_epochs",
                    ConvergenceWarning,
                )
            )
        for name, rows in zip("xy", views, strict=True):
            if not rows.varies:
                notes.append(
                    (
                        f"every column of {name} is constant: there is nothing to learn from",
                        UserWarning,
                    )
                )
        return notes

    def _validate_params(self) -> None:
        super()._validate_params()
        widths = self.hidden
        if not all(isinstance(h, Integral) and not isinstance(h, bool) and h > 0 for h in widths):
            raise ValueError(f"hidden={self.hidden!r} must hold the widths of layers, ints above 0")

    def _coordinates(self, rows: Any, view: str) -> Array:
        encoder: Encoder = self.x_encoder_ if view == "x" else self.y_encoder_
        return encoder(rows, "X" if view == "x" else "y")


def _likes(X: Any, y: Any) -> tuple[Any, Any]:
    """What the fitted arrays of both views are like: a sparse view is like the other one."""
    if scipy.sparse.issparse(X):
        return y, y
    return X, X
