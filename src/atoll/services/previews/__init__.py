"""Previews: ports of sandboxes that are reached from outside; surfaces call `Previews`, the gateway carries bytes."""
