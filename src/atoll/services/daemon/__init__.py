"""What the sidekick API of each sandbox needs beyond sandboxes: commands, terminals, events."""
