"""The CUDA routes: Numba kernels, their launchers and the CuPy calls.

Imported by a dispatcher at the first CuPy array: these modules import `numba.cuda` and CuPy.
"""
