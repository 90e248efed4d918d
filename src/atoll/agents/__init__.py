"""Who does the tasks: adapters of agent programs, all behind `base.Agent`."""
