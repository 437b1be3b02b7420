"""Training two networks with torch: rows, epochs, early stopping, the two objectives.

Imported by the deep baselines when they are fitted, so that the package does not need torch.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import array_api_compat
import numpy as np
import scipy.sparse
from sklearn.utils.sparsefuncs import mean_variance_axis

from cmstats.arrays import Array, device_of, is_numpy, namespace, result_dtype, to_numpy
from cmstats.baselines.encoder import Activation, Encoder, forward, layer_shapes
from cmstats.baselines.two_view import reciprocal_rank
from cmstats.models.latent import unit_rows
from cmstats.rows.progress import progress_bar

# Not an import statement: types then do not depend on whether torch is installed.
torch: Any = importlib.import_module("torch")

__all__ = ["ContrastiveLoss", "CorrelationLoss", "Outcome", "Plan", "Rows", "train"]

Tensor = Any

FEW = 5
"""Fewer validation rows than these say nothing of when to stop."""
VALIDATION_ROWS = 5000
"""More validation rows would cost time and say no more."""
ENCODE_ROWS = 8192
"""How many rows are encoded at a time where nothing is learnt from them."""
SMALL_STEP = 5e8
"""Rows times weights of a step below which one thread trains faster than several.

More threads then win little, and lose several times where the cores are busy, since each
operation waits for the last thread.
"""


@dataclass(frozen=True)
class Plan:
    """How to train: the parameters of the estimator that both deep baselines have."""

    hidden: tuple[int, ...]
    outputs: int
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
    seed: int


class Rows:
    """The rows of one view, centred and scaled, as float32 tensors on the training device.

    Sparse rows become dense a batch at a time.
    """

    def __init__(self, a: Any, *, scale: bool, device: Any) -> None:
        self.count, self.device = int(a.shape[0]), device
        sparse = scipy.sparse.issparse(a)
        data = a if sparse else _tensor(a, device)
        mean, variance = _sparse_moments(a, device) if sparse else _dense_moments(data)
        std = torch.sqrt(variance if scale else variance.mean().expand_as(variance))
        # What varies by rounding alone is constant.
        rounding = np.finfo(result_dtype(a.data)).eps if sparse else torch.finfo(data.dtype).eps
        varies = std > 10 * float(rounding) * (mean.abs() if scale else mean.abs().max())
        self.varies = bool(varies.any())
        self.mean, self.unit = mean, torch.where(varies, std, torch.ones_like(std))
        self._sparse = a if sparse else None
        self._data: Any = None if sparse else self._standardised(data)

    def _standardised(self, data: Tensor) -> Tensor:
        # Centred in the precision of the data, before it becomes float32.
        return ((data - self.mean.to(data.dtype)) / self.unit.to(data.dtype)).float()

    def __getitem__(self, index: Tensor) -> Tensor:
        if self._sparse is None:
            return self._data[index.to(self.device)]
        part = self._sparse[index.cpu().numpy()].toarray()
        return self._standardised(_tensor(part, self.device))


def _tensor(a: Array, device: Any) -> Tensor:
    """A float tensor on `device`; arrays of other libraries than torch go through the host."""
    if array_api_compat.is_torch_array(a):
        t = a.detach()
    else:
        host = to_numpy(a)
        t = torch.from_numpy(np.array(host, dtype=result_dtype(host), order="C"))
    keep = t.dtype == torch.float64 or not t.is_floating_point()
    return t.to(device=device, dtype=torch.float64 if keep else torch.float32)


def _dense_moments(data: Tensor) -> tuple[Tensor, Tensor]:
    mean = data.mean(0, dtype=torch.float64)
    centred = data - mean.to(data.dtype)
    return mean, (centred * centred).mean(0, dtype=torch.float64)


def _sparse_moments(a: Any, device: Any) -> tuple[Tensor, Tensor]:
    mean, variance = mean_variance_axis(a.astype(np.float64), axis=0)
    return torch.from_numpy(mean).to(device), torch.from_numpy(variance).to(device)


class Network:
    """The network of one view while it is trained."""

    def __init__(self, width: int, plan: Plan, generator: Any) -> None:
        self.plan = plan
        self.layers = []
        for shape in layer_shapes(width, plan.hidden, plan.outputs):
            bound = 1 / math.sqrt(shape[0])
            weights = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            pair = weights.to(plan.device), torch.zeros(shape[1], device=plan.device)
            self.layers.append(tuple(t.requires_grad_() for t in pair))

    def __call__(self, x: Tensor, noise: Any = None) -> Tensor:
        """The outputs; entries are dropped where there is a generator of noise."""

        def drop(a: Tensor) -> Tensor:
            rate = self.plan.dropout
            if noise is None or not rate:
                return a
            kept = torch.rand(a.shape, generator=noise, device=a.device) >= rate
            return a * kept / (1 - rate)

        weights, bias = self.layers[0]
        return forward(drop(x) @ weights + bias, self.layers[1:], self.plan.activation, drop)

    def encode(self, rows: Rows, index: Tensor) -> Tensor:
        """Outputs without noise, of float64: for judging, not for learning."""
        with torch.no_grad():
            return torch.cat([self(rows[part]).double() for part in index.split(ENCODE_ROWS)])

    def parameters(self) -> list[Tensor]:
        return [t for layer in self.layers for t in layer]

    def fitted(self, rows: Rows, like: Any) -> Encoder:
        """The network in arrays of the library and on the device of `like`, in float64."""
        (first, bias), *layers = [
            tuple(t.detach().double() for t in layer) for layer in self.layers
        ]
        # The units of the features go into the first matrix.
        pairs = [(first / rows.unit[:, None], bias), *layers]
        (one, *rest) = [(_as_given(w, like), _as_given(b, like)) for w, b in pairs]
        return Encoder(_as_given(rows.mean, like), one, rest, self.plan.activation)


def _as_given(t: Tensor, like: Any) -> Array:
    if array_api_compat.is_torch_array(like):
        return t.to(like.device)
    host = t.cpu().numpy()
    if scipy.sparse.issparse(like) or is_numpy(namespace(like)):
        return host
    return namespace(like).asarray(host, device=device_of(like))


class ContrastiveLoss:
    """InfoNCE in both directions, with a learned temperature (CLIP's loss)."""

    def __init__(self, temperature: float, device: Any) -> None:
        start = torch.tensor(-math.log(temperature), dtype=torch.float32, device=device)
        self.log_scale = start.requires_grad_()
        self.parameters = [self.log_scale]

    @property
    def temperature(self) -> float:
        """The temperature of the softmax, at least 0.01."""
        return math.exp(-min(float(self.log_scale.detach()), math.log(100.0)))

    def loss(self, u: Tensor, v: Tensor) -> Tensor:
        """The symmetric contrastive loss (InfoNCE) of a batch."""
        u, v = (torch.nn.functional.normalize(a, dim=1) for a in (u, v))
        scores = u @ v.T * self.log_scale.clamp(max=math.log(100.0)).exp()
        partner = scores.diagonal()
        return (scores.logsumexp(1) + scores.logsumexp(0) - 2 * partner).mean() / 2

    def score(self, train: tuple[Tensor, Tensor], u: Tensor, v: Tensor) -> tuple[float, float]:
        """Retrieval; the loss still tells epochs apart that find every partner."""
        U, V = (to_numpy(unit_rows(a)) for a in (u, v))
        with torch.no_grad():
            return reciprocal_rank(U, V), -float(self.loss(u, v))


class CorrelationLoss:
    """Minus the sum of the canonical correlations of a batch, with shrunken covariances."""

    def __init__(self, shrinkage: float, monitor: Literal["correlation", "retrieval"]) -> None:
        self.shrinkage, self.monitor = shrinkage, monitor
        self.parameters: list[Tensor] = []

    def loss(self, u: Tensor, v: Tensor) -> Tensor:
        """The negative sum of the canonical correlations of a batch."""
        u, v = (a.double() for a in (u, v))
        total = u.sum() + v.sum()
        if not bool(torch.isfinite(total)):  # no factorisation takes these
            return total * math.nan
        _, _, cross = self._whitened(u - u.mean(0), v - v.mean(0))
        # The gradient of the sum of singular values is U V': no gaps are divided by.
        return -torch.linalg.svdvals(cross).sum()

    def score(self, train: tuple[Tensor, Tensor], u: Tensor, v: Tensor) -> tuple[float, float]:
        """The mean held-out correlation, or the retrieval, of linear CCA of `train`."""
        a, b = train
        centred = a - a.mean(0), b - b.mean(0)
        x_factor, y_factor, cross = self._whitened(*centred)
        left, r, right = torch.linalg.svd(cross, full_matrices=False)
        u = torch.linalg.solve_triangular(x_factor, (u - a.mean(0)).T, upper=False).T @ left
        v = torch.linalg.solve_triangular(y_factor, (v - b.mean(0)).T, upper=False).T @ right.T
        if self.monitor == "retrieval":
            return reciprocal_rank(*(to_numpy(unit_rows(r * t)) for t in (u, v))), 0.0
        u, v = u - u.mean(0), v - v.mean(0)
        norms = torch.sqrt((u * u).sum(0) * (v * v).sum(0))
        return float(((u * v).sum(0) / norms.clamp(min=1e-300)).mean()), 0.0

    def _whitened(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cholesky factors of the covariances, and the cross-covariance between them."""
        factors = []
        for a in (u, v):
            covariance = a.T @ a / len(a)
            level = covariance.diagonal().mean()
            eye = torch.eye(len(covariance), dtype=a.dtype, device=a.device)
            # 1e-12: outputs that do not vary have no correlations, but a factor.
            ridge = self.shrinkage * level + 1e-12
            factors.append(torch.linalg.cholesky((1 - self.shrinkage) * covariance + ridge * eye))
        cross = (1 - self.shrinkage) * (u.T @ v) / len(u)
        half = torch.linalg.solve_triangular(factors[0], cross, upper=False)
        whole = torch.linalg.solve_triangular(factors[1], half.T, upper=False).T
        return factors[0], factors[1], whole


@dataclass
class Outcome:
    """Two trained networks, the objective with its parameters, and how it went."""

    networks: tuple[Network, Network]
    objective: Any
    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_epoch: int = 0
    diverged: bool = False
    stopped: bool = False

    @property
    def improving(self) -> bool:
        """Whether the bound on epochs came before the end of the progress."""
        last, before = self.scores[-1:], max(self.scores[:-1], default=-math.inf)
        return not self.stopped and last > [before]


def train(x: Rows, y: Rows, plan: Plan, objective: Callable[[], Any]) -> Outcome:
    """Train on a part of the rows until the rest says stop; then, with refit, on all of them."""
    generator = torch.Generator().manual_seed(plan.seed)
    order = torch.randperm(x.count, generator=generator)
    held = min(int(plan.validation_fraction * x.count), VALIDATION_ROWS)
    held = held if held >= FEW else 0
    with torch.inference_mode(False), torch.enable_grad(), _threads(x, y, plan):
        found = _run(x, y, order[held:], order[:held], plan, objective(), plan.max_epochs)
        if not (plan.refit and held and found.best_epoch):
            return found
        final = _run(x, y, order, order[:0], plan, objective(), found.best_epoch)
    if final.diverged:
        return found
    found.networks, found.objective = final.networks, final.objective
    return found


@contextmanager
def _threads(x: Rows, y: Rows, plan: Plan) -> Iterator[None]:
    """One thread of torch for small steps, the user's number again afterwards."""
    shapes = [s for a in (x, y) for s in layer_shapes(len(a.mean), plan.hidden, plan.outputs)]
    work = min(plan.batch_size, x.count) * sum(i * o for i, o in shapes)
    before = torch.get_num_threads()
    if work < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _run(
    x: Rows, y: Rows, rows: Tensor, held: Tensor, plan: Plan, objective: Any, epochs: int
) -> Outcome:
    """Epochs over `rows`; the weights are those of the epoch that is best on `held`."""
    # CPU numbers for what does not depend on the device, the device's own for noise.
    generator = torch.Generator().manual_seed(plan.seed + 1)
    noise = torch.Generator(plan.device).manual_seed(plan.seed + 2)
    networks = tuple(Network(len(a.mean), plan, generator) for a in (x, y))
    out = Outcome(networks, objective)  # type: ignore[arg-type]
    learned = [t for n in networks for t in n.parameters()] + objective.parameters
    optimizer = _optimizer(learned, plan)
    best: list[Tensor] | None = None
    best_key = (-math.inf, -math.inf)
    sample = rows[:VALIDATION_ROWS]
    for epoch in _epochs(epochs, plan, out, "training" if len(held) else "training on all rows"):
        total = torch.zeros((), device=plan.device)
        for batch in _batches(rows, plan.batch_size, generator):
            u, v = (n(a[batch], noise) for n, a in zip(networks, (x, y), strict=True))
            loss = objective.loss(u, v)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(batch) / len(rows)
        out.losses.append(float(total))
        if not all(bool(torch.isfinite(t).all()) for t in (total, *learned)):
            out.diverged = True
            break
        if not len(held):
            out.best_epoch = epoch
            continue
        seen, new = (_encoded(networks, x, y, index) for index in (sample, held))
        if not all(bool(torch.isfinite(t).all()) for t in (*seen, *new)):
            out.diverged = True
            break
        key = objective.score(seen, *new)
        out.scores.append(key[0])
        if key > best_key:
            best, best_key = [t.detach().clone() for t in learned], key
            out.best_epoch = epoch
        if epoch - out.best_epoch >= plan.patience:
            out.stopped = True
            break
    if best is not None:
        with torch.no_grad():
            for t, value in zip(learned, best, strict=True):
                t.copy_(value)
    return out


def _optimizer(learned: list[Tensor], plan: Plan) -> Any:
    """AdamW, whose decay is for matrices: not for biases or the temperature."""
    decay = [
        [t for t in learned if t.ndim > 1],
        [t for t in learned if t.ndim < 2],
    ]
    groups = [
        {"params": group, "weight_decay": amount}
        for group, amount in zip(decay, (plan.weight_decay, 0.0), strict=True)
    ]
    return torch.optim.AdamW(groups, lr=plan.learning_rate, betas=(0.9, 0.98))


def _encoded(networks: Any, x: Rows, y: Rows, index: Tensor) -> tuple[Tensor, ...]:
    return tuple(n.encode(a, index) for n, a in zip(networks, (x, y), strict=True))


def _batches(rows: Tensor, size: int, generator: Any) -> tuple[Tensor, ...]:
    """The rows in a new order, in batches of nearly equal sizes."""
    shuffled = rows[torch.randperm(len(rows), generator=generator)]
    parts: tuple[Tensor, ...] = shuffled.tensor_split(max(1, round(len(rows) / size)))
    return parts


def _epochs(epochs: int, plan: Plan, out: Outcome, what: str) -> Iterator[int]:
    """1, 2, ..., `epochs`, with a progress bar where one is asked for."""
    numbers = range(1, epochs + 1)
    with progress_bar(bool(plan.verbose), what, "epoch", items=numbers) as bar:
        for epoch in bar:
            yield epoch
            last = {"loss": out.losses[-1]} | ({"score": out.scores[-1]} if out.scores else {})
            bar.set_postfix(last)
