"""The async client of one sidekick: processes, files and ports of one sandbox; services and gateway use it.

Every call opens one connection through the runtime's connector, so calls never wait for each other.
"""
