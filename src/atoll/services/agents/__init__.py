"""Agents as services know them: their programs, installed outside of any sandbox and seen in those of tasks."""
