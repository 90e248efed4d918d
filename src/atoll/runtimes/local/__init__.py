"""The local runtime: sandboxes made from this machine's own kernel by a small forking process, the node."""
