"""The command `k9`, one module per command."""
