"""Atoll: a self-hosted cloud of computers for AI agents and developers."""

__version__ = "0.1.0"
