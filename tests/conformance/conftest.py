"""The contract examples, for the parts of this suite that need them."""

from contract.conftest import contracts

__all__ = ["contracts"]
