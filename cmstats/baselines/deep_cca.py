"""Deep canonical correlation analysis."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal

from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from cmstats.arrays import Array, recorded
from cmstats.baselines.deep_base import DeepBaseline
from cmstats.baselines.encoder import Activation
from cmstats.models.cca import CCA, Kind
from cmstats.models.dask import by_rows, refused, row_wise

__all__ = ["DeepCCA"]


class DeepCCA(DeepBaseline):
    r"""Deep CCA: networks whose outputs are canonically correlated.

    A network for each view, trained so that the canonical correlations of the outputs are
    large (Andrew et al. 2013), then linear CCA of the outputs of the training rows:

    .. math:: \max_{f, g}\; \left\| S_{ff}^{-1/2} S_{fg} S_{gg}^{-1/2} \right\|_*

    The trace norm is the sum of the correlations. The covariances are shrunk as in `CCA`, and
    are those of a batch, which has to be large against `n_components` (Wang et al. 2015).

    Parameters
    ----------
    n_components : int, default=10
        Number of outputs of the networks, and of pairs of variates.
    hidden : tuple of int, default=(512,)
        Widths of the hidden layers of both networks; ``()`` is a linear map. Beside hidden
        layers there is a linear path from the features to the outputs.
    activation : {"relu", "tanh"}, default="relu"
    shrinkage : float in (0, 1), default=0.01
        Of the covariances of the outputs, towards the mean variance.
    scale : bool, default=False
        Divide each feature by its standard deviation. By default the whole view is divided by
        one number: directions of small variance, of which there are many in features of
        neural networks and in TF-IDF, stay small.
    dropout : float in [0, 1), default=0.2
        Share of the features, and of the hidden units, that are zero in a training step.
    learning_rate, weight_decay : float, default=0.01, 0.01
        Of AdamW.
    batch_size : int, default=1024
        About how many rows a step takes; an epoch is cut into equal batches.
    max_epochs : int, default=200
    validation_fraction : float in [0, 1), default=0.1
        Share of the training rows (at most 5000) whose score decides the epoch to stop at.
        Below 5 such rows all of `max_epochs` are run.
    monitor : {"correlation", "retrieval"}, default="correlation"
        That score: the mean held-out correlation, or the mean reciprocal rank of the partner
        by weighted cosine. Correlations go on rising long after retrieval has begun to fall.
    patience : int, default=20
        Epochs without a better validation score before training stops.
    refit : bool, default=True
        Train anew on all rows, for as many epochs as were best. Otherwise the weights are
        those of the best epoch, trained without the validation rows.
    device : str or torch.device, optional
        Where to train: "cpu", "cuda". None is where the data are: the device of a tensor, the
        CPU for anything else. Results come back in the library and on the device of the data.
    verbose : bool, default=False
        Show a progress bar.
    random_state : int or RandomState, optional
        Seeds the split, the weights, the batches and dropout; torch's own seed is left
        alone. Results are the same to the bit on one CPU with one number of threads.

    Attributes
    ----------
    correlations_ : array of shape (n_components_,)
        Training correlations of the paired variates.
    cca_ : CCA
        Of the outputs of the training rows.
    x_encoder_, y_encoder_ : callables
        The networks, in arrays of the library of the data: predicting needs no torch.
    history_ : DataFrame
        "loss" (minus the sum of correlations, mean over batches) and "validation_score" (see
        `monitor`) of each epoch.
    best_score_ : float
        The largest validation score.
    best_epoch_, n_iter_ : int
        The epoch it was reached in, and the epochs that were run.
    n_components_, n_parameters_ : int
    device_ : str
        Where it was trained.
    n_features_in_, feature_names_in_, y_feature_names_in_
        The columns seen in `fit`.

    See Also
    --------
    KernelCCA : Nonlinear CCA without training.

    References
    ----------
    Andrew, G., Arora, R., Bilmes, J. and Livescu, K. (2013). Deep canonical correlation
    analysis. ICML.
    Wang, W., Arora, R., Livescu, K. and Bilmes, J. (2015). On deep multi-view representation
    learning. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.baselines import DeepCCA
    >>> rng = np.random.default_rng(0)
    >>> z = rng.uniform(-2, 2, size=(500, 1))
    >>> X = np.hstack([z, rng.normal(size=(500, 2))])
    >>> Y = np.hstack([z**2, rng.normal(size=(500, 2))])  # no linear correlation
    >>> model = DeepCCA(1, hidden=(64,), random_state=0).fit(X[:400], Y[:400])
    >>> model.score(X[400:], Y[400:]) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **DeepBaseline._parameter_constraints,
        "shrinkage": [Interval(Real, 0, 1, closed="neither")],
        "monitor": [StrOptions({"correlation", "retrieval"})],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden: tuple[int, ...] = (512,),
        activation: Activation = "relu",
        shrinkage: float = 0.01,
        scale: bool = False,
        dropout: float = 0.2,
        learning_rate: float = 0.01,
        weight_decay: float = 0.01,
        batch_size: int = 1024,
        max_epochs: int = 200,
        validation_fraction: float = 0.1,
        monitor: Literal["correlation", "retrieval"] = "correlation",
        patience: int = 20,
        refit: bool = True,
        device: Any = None,
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.activation = activation
        self.shrinkage = shrinkage
        self.scale = scale
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validation_fraction = validation_fraction
        self.monitor = monitor
        self.patience = patience
        self.refit = refit
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def _objective(self, training: Any, device: Any) -> Any:
        return training.CorrelationLoss(self.shrinkage, self.monitor)

    def _outputs(self, n: int) -> int:
        return min(self.n_components, n - 1)

    def _finish(self, outcome: Any, X: Any, y: Any) -> None:
        u, v = super()._coordinates(X, "x"), super()._coordinates(y, "y")
        with recorded():  # of outputs, which the user has not made
            self.cca_ = CCA(self._outputs(X.shape[0]), shrinkage=self.shrinkage).fit(u, v)
        self.correlations_ = self.cca_.correlations_
        self.n_components_ = self.cca_.n_components_

    def _notes(self, outcome: Any, views: list[Any]) -> list[tuple[str, type[Warning]]]:
        notes = super()._notes(outcome, views)
        if self.n_components_ < self.n_components:
            notes.append(
                (
                    f"only {self.n_components_} of n_components={self.n_components} exist, the "
                    "rank of the outputs on these rows; the rest are left out",
                    UserWarning,
                )
            )
        return notes

    def _validate_params(self) -> None:
        super()._validate_params()
        if self.batch_size <= self.n_components:
            raise ValueError(
                f"batch_size={self.batch_size} must be above n_components={self.n_components}: "
                "in fewer rows all correlations are 1"
            )

    def _coordinates(self, rows: Any, view: str) -> Array:
        outputs = super()._coordinates(rows, view)
        return self.cca_.transform(outputs) if view == "x" else self.cca_.transform(y=outputs)

    @row_wise
    def embed(
        self, X: Any = None, y: Any = None, *, kind: Kind = "weighted_cosine", power: float = 1.0
    ) -> Any:
        """Vectors whose plain inner product is the similarity of an x and a y.

        Parameters
        ----------
        X, y
            As in `transform`.
        kind, power
            As in `CCA.embed`, of the linear CCA of the outputs.

        Returns
        -------
        array of shape (n_samples, m), or a pair of these
            m is `n_components_`, and two more for "likelihood_ratio".
        """
        outputs = self._outputs_of(X, y)
        return self.cca_.embed(*outputs, kind=kind, power=power)

    @by_rows
    def similarity(
        self, X: Any, y: Any, *, kind: Kind = "weighted_cosine", power: float = 1.0
    ) -> Array:
        """The similarity of every x with every y, shape (n_x, n_y).

        Parameters
        ----------
        X, y
            As in `transform`; numbers of rows may differ.
        kind, power
            As in `embed`.

        Returns
        -------
        array of shape (n_x, n_y)
        """
        return self._compared(X, y, kind=kind, power=power)

    @refused
    def score(self, X: Any, y: Any) -> float:
        """The mean correlation of the variates of held-out rows, as `CCA.score`.

        Parameters
        ----------
        X, y
            As in `fit`.

        Returns
        -------
        float
            NaN, with a warning, where a variate is constant.
        """
        check_is_fitted(self)
        self._blocks(X, y, reset=False)
        return self.cca_.score(*self._outputs_of(X, y))

    def _outputs_of(self, X: Any, y: Any) -> tuple[Array | None, Array | None]:
        """The networks' outputs of the views that are given."""
        check_is_fitted(self)
        if X is None and y is None:
            raise ValueError("give X, y or both")
        given = self._given(X, y)
        out = {view: super(DeepCCA, self)._coordinates(a, view) for view, (a, _) in given.items()}
        return out.get("x"), out.get("y")
