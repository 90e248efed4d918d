"""What the tests of tasks share."""

from tests.services.workspaces.workshop import shop

from .desk import desk

__all__ = ["desk", "shop"]
