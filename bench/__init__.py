"""`make bench`: Atoll measured beside the bare floor and its peers, in one run, on this machine."""
