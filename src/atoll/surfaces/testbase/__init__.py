"""Testbase Cloud's API: keys, tasks and sessions, files of workspaces, billing; its words are the protocol's."""
