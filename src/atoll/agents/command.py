"""any program, as an agent. Not here yet."""
