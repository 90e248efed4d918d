"""ComputeSDK's on-premises API, as far as it is served yet: its file systems, which are workspaces."""
