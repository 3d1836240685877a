"""The kinds of fields that the shapes of request bodies are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

LOOSE = ConfigDict(extra="ignore", strict=True)
"""Unknown fields pass: backends have parameters of their own."""
CLOSED = ConfigDict(extra="forbid", strict=True)

Text = Annotated[str, Field(min_length=1)]
ModelName = Annotated[str, Field(min_length=1, max_length=512)]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[float, Field(allow_inf_nan=False)]
"""JSON has no infinity, but `1e400` reads as one, and no backend could be sent it."""
Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600, allow_inf_nan=False)]
