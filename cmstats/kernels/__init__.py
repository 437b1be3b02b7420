"""The numeric kernels: the loops and products over rows, on the CPU and on CUDA.

- `covariance`: count, mean and scatter matrix of rows, and the accumulator behind them.
- `gram`: blocks of kernel values, and the median heuristic for their scale.
- `normal`: log-densities of multivariate normals and of their mixtures.
- `mixture`: the E-step of a mixture of normals, with the sums that its M-step needs.
- `ranks`: ranks of partners, top-k and average precision, over tiles of scores.
- `whitening`: factors of a covariance matrix, with its rank, condition and determinant.
- `groups`, `sparse`: matrices between two blocks under l1 and group penalties, by coordinate
  descent and ADMM.
- `pmd`: the penalised matrix decomposition of a matrix.
- `linalg`: decompositions, triangular solves, block matrices, the sign rule.
- `threads`: Python threads over tiles, with the BLAS limited to one thread meanwhile.
- `transfer`: copies of rows from the host to a GPU.
- `parameters`, `rank_problem`: what a dispatcher and its routes exchange.

The first five hold a reference implementation for any array library and a dispatcher, which
sends NumPy arrays to the compiled loops in `_cpu` and CuPy arrays to the kernels in `_cuda`.
Those two are imported when the first such array arrives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmstats import lazy

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, {})

__all__ = [
    "covariance",
    "gram",
    "groups",
    "linalg",
    "mixture",
    "normal",
    "parameters",
    "pmd",
    "rank_problem",
    "ranks",
    "sparse",
    "threads",
    "transfer",
    "whitening",
]
