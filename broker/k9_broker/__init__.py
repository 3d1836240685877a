"""K-9: a distributed, queue-based inference broker."""

__version__ = "0.1.0"
