"""Does a text contain what must stay local? A pure rule over strings; `Detector` is its only door.

What each category finds, and what it does not, stands in docs/privacy.md.
"""

from __future__ import annotations

from k9_broker.sensitive.categories import Category
from k9_broker.sensitive.detector import Detector

__all__ = ["Category", "Detector"]
