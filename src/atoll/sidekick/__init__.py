"""What runs inside a sandbox, and the client that speaks to it; standard library only (docs/sidekick-protocol.md)."""
