"""The object-store door: workspaces in the words of XML APIs that clients of object stores speak."""
