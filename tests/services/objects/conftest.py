"""The storage that tests of workspaces have, for those of objects."""

from tests.services.workspaces.storage import storage

__all__ = ["storage"]
