"""Workspaces: file trees that outlive sandboxes, with every state that they went through; surfaces see `Workspaces`."""
