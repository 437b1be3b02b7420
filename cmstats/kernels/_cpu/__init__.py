"""The CPU routes: loops compiled by Numba, and the BLAS calls between them.

Imported by a dispatcher at the first NumPy array, so that the package loads without Numba.
"""
