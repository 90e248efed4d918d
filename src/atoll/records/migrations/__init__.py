"""The migrations, oldest first; their sum is `records/schema.py`."""

HEAD = "0010"
