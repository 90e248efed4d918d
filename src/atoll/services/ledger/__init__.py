"""The ledger service: who may spend, what it costs, and what is charged for it."""
