"""Tasks: agents that work on workspaces; surfaces call `Tasks`."""
