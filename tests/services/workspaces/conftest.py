"""What the tests of workspaces share."""

from .storage import storage
from .workshop import shop

__all__ = ["shop", "storage"]
