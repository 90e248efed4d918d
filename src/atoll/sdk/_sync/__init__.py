# Made by scripts/unasync.py from ../_async/__init__.py: change that file, not this one.
"""The SDK's classes of one kind, awaiting or waiting; scripts/unasync.py makes the second kind from the first."""
