"""Working trees: how a tree is filled, looked at and read; only what changed is read again."""
