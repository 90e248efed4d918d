"""Testbase Cloud's API, as far as it is served yet: the administration of keys."""
