"""The version, where the build finds it and everything may import it."""

__version__ = "0.1.0"
