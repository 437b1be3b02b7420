"""The CPU routes: Numba loops, and the tiles they and BLAS work on, one file per room."""
