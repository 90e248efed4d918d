"""What the tests of workspaces share."""

from .storage import storage

__all__ = ["storage"]
