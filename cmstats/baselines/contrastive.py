"""Contrastive alignment of two views."""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval

from cmstats.baselines.deep_base import DeepBaseline
from cmstats.baselines.encoder import Activation

__all__ = ["ContrastiveAligner"]


class ContrastiveAligner(DeepBaseline):
    r"""Heads trained so that an item is nearest to its partner: CLIP's loss on given features.

    A linear head or a network for each view maps the features to unit vectors u, v; with the
    logits :math:`s_{ij} = u_i' v_j / \tau` of a batch of m pairs the loss is InfoNCE in both
    directions, with a learned temperature :math:`\tau` (van den Oord et al. 2018; Radford et
    al. 2021):

    .. math:: -\frac{1}{2m} \sum_i \left( \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ij}}}
        + \log \frac{e^{s_{ii}}}{\sum_j e^{s_{ji}}} \right)

    Parameters
    ----------
    n_components : int, default=256
        Length of the vectors.
    hidden : tuple of int, default=()
        Widths of the hidden layers of both heads; by default heads are linear. Beside hidden
        layers there is a linear path from the features to the vectors.
    activation : {"relu", "tanh"}, default="relu"
    temperature : float, default=0.07
        What the learned temperature starts from; it does not fall below 0.01.
    scale : bool, default=False
        Divide each feature by its standard deviation. By default the whole view is divided by
        one number: directions of small variance, of which there are many in features of
        neural networks and in TF-IDF, stay small.
    dropout : float in [0, 1), default=0.2
        Share of the features, and of the hidden units, that are zero in a training step.
    learning_rate, weight_decay : float, default=0.003, 0.01
        Of AdamW.
    batch_size : int, default=512
        About how many pairs a step takes, each the others' wrong pairs; an epoch is cut into
        equal batches.
    max_epochs : int, default=200
    validation_fraction : float in [0, 1), default=0.1
        Share of the training rows (at most 5000) whose retrieval (the mean reciprocal rank of
        both directions) decides the epoch to stop at. Below 5 such rows all of `max_epochs`
        are run.
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
    temperature_ : float
        The learned temperature.
    x_encoder_, y_encoder_ : callables
        The heads, in arrays of the library of the data: predicting needs no torch.
    history_ : DataFrame
        "loss" (nats a pair, mean over batches) and "validation_score" (mean reciprocal rank)
        of each epoch.
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
    ASIF : Alignment without training.

    Notes
    -----
    `transform` returns what the heads put out, `embed` the same at unit length.

    References
    ----------
    van den Oord, A., Li, Y. and Vinyals, O. (2018). Representation learning with contrastive
    predictive coding. arXiv:1807.03748.
    Radford, A. et al. (2021). Learning transferable visual models from natural language
    supervision. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> from cmstats.baselines import ContrastiveAligner
    >>> rng = np.random.default_rng(0)
    >>> z = rng.normal(size=(400, 8))
    >>> X, Y = z @ rng.normal(size=(8, 20)), z @ rng.normal(size=(8, 15))
    >>> model = ContrastiveAligner(16, random_state=0).fit(X[:300], Y[:300])
    >>> model.score(X[300:], Y[300:]) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **DeepBaseline._parameter_constraints,
        "temperature": [Interval(Real, 0.01, None, closed="left")],
    }

    def __init__(
        self,
        n_components: int = 256,
        *,
        hidden: tuple[int, ...] = (),
        activation: Activation = "relu",
        temperature: float = 0.07,
        scale: bool = False,
        dropout: float = 0.2,
        learning_rate: float = 3e-3,
        weight_decay: float = 0.01,
        batch_size: int = 512,
        max_epochs: int = 200,
        validation_fraction: float = 0.1,
        patience: int = 20,
        refit: bool = True,
        device: Any = None,
        verbose: bool = False,
        random_state: Any = None,
    ) -> None:
        self.n_components = n_components
        self.hidden = hidden
        self.activation = activation
        self.temperature = temperature
        self.scale = scale
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.refit = refit
        self.device = device
        self.verbose = verbose
        self.random_state = random_state

    def _objective(self, training: Any, device: Any) -> Any:
        return training.ContrastiveLoss(self.temperature, device)

    def _finish(self, outcome: Any, X: Any, y: Any) -> None:
        self.temperature_ = outcome.objective.temperature
        self.n_parameters_ += 1
        self.n_components_ = self.n_components
