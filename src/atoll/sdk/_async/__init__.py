"""The SDK as it is written, with async and await; `scripts/unasync.py` makes `_sync/` from it."""
