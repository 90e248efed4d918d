from tests.surfaces.testbase.conftest import office, open_office

__all__ = ["office", "open_office"]
