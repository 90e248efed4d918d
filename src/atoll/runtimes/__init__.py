"""Plug point: where sandboxes run. `base` is the contract; each adapter has a folder of its own."""
