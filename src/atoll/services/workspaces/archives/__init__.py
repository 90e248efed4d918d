"""Archives: a revision as one tar.zst and the reverse, and copies of snapshots as such files."""
