"""The migrations, oldest first; their sum is `records/schema`."""

HEAD = "0017"
