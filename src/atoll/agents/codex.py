"""Codex, as an agent. Not here yet."""
