"""Background jobs: commands that a sandbox runs again and again."""
