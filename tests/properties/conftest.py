"""Properties are about what holds; how fast it is found out on a busy machine says nothing."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
