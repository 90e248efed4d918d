"""Shipped test parts: conformance suites that every adapter passes, fakes, and doubles that misbehave."""
