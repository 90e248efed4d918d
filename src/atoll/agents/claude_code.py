"""Claude Code, as an agent. Not here yet."""
