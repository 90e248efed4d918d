"""The `atoll` command: one file for each group of commands, each loading what it needs only when it runs."""
