"""Dialects: how a request is written for a backend's server, and how its answer is read. No I/O."""
