"""Webhooks: URLs that are told of events; signed calls, in order, tried again for a day, never led inside."""
