"""Atoll as a server of the Model Context Protocol (https://modelcontextprotocol.io): sandboxes as an agent's tools.

`atoll mcp` runs it, over stdio or HTTP. It is a client of the API like any other and holds no power of its own.
"""
