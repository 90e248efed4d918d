"""The SDK's classes of one kind, awaiting or waiting; scripts/unasync.py makes the second kind from the first."""
