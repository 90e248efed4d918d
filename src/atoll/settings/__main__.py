"""Prints docs/settings.md."""

from atoll.settings.page import render_markdown

print(render_markdown(), end="")
