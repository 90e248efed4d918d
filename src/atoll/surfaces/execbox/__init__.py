"""The execbox remote protocol: sessions, their streams, files and ports, and Atoll's own additions to it."""
