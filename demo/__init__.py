"""`make demo`: Atoll's main job in half a minute, on a server of its own that is gone afterwards."""
