"""The audit trail above the records: signed checkpoints, verification, export, streams and webhooks."""
