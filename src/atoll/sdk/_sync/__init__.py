# Made by scripts/unasync.py from ../_async/__init__.py: change that file, not this one.
# ruff: noqa: I001, UP028
"""The SDK as it is written, with and await; `scripts/unasync.py` makes `_sync/` from it."""
