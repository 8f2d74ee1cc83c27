"""The version, and the flag of bnfold's own process: where the build finds them and everything may import them."""

__version__ = "0.1.0"

ONE_THREAD = "01"
"""A value of OPENBLAS_NUM_THREADS that says who set it: bnfold's own program, which computes no large products."""
