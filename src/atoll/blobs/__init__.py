"""PLUG POINT: where bytes live. `base` is the contract; the composition root opens an adapter by a URL."""
