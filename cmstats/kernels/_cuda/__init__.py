"""The CUDA routes: Numba kernels, their launchers and the CuPy calls, one file per room.

Imported by a dispatcher when the first CuPy array arrives, never with the package: what
stands here may import `numba.cuda` and CuPy.
"""
