"""Charging for compute and storage, where the settings give them a price of their own."""
