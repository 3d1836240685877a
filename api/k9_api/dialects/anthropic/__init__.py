"""Anthropic's wire format, as callers see it: `ingress` reads requests, `egress` writes answers."""
