"""Cloud Terminal Platform's HTTP APIs: snapshots of one's default workspace, and workspaces that agents share."""
