"""What the world speaks to: one folder a dialect, each with routes, schemas and its own error envelope."""
