"""What the object-store door does: its access keys, and workspaces as a bucket of objects."""
