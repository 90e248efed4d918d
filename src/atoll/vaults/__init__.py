"""PLUG POINT: who keeps the master key. `base` is the contract."""
