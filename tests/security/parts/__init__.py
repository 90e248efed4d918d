"""The matrix of authorisation by surface: each part has the lines of its routes, its things and its events."""

from tests.security.parts import (
    agents_sdk,
    computes,
    marketplace,
    mcp,
    previews,
    sidekick,
    sidekick_tools,
    terminal_platform,
)

PARTS = (agents_sdk, computes, marketplace, mcp, previews, sidekick, sidekick_tools, terminal_platform)
