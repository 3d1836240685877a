"""The main job, shown on texts every machine has: the docstrings of Python's standard library."""
