"""The servers that fault tests kill: the same fixtures as the end-to-end tests have."""

from tests.e2e.conftest import _mortal, mortal, new_server

__all__ = ["_mortal", "mortal", "new_server"]
