"""References: parts of a conversation that name a file or URL in place of content; the provider would fetch them.

Its files lie below one key for all tenants, and its network is a way out for a sandbox that has none.
"""

from __future__ import annotations

import re
from typing import Any, cast

# What a request without any of these has no reference; `\u0066ile_id` is one too.
HINT = re.compile(
    rb'"(?:file_id|file_url|image_url|video_url|audio_url|item_reference|container_upload)"|"source"\s*:|\\u00[2-7]',
    re.IGNORECASE,
)
_IMAGES = frozenset({"input_image", "image_url", "image", "computer_screenshot"})
_FILES = frozenset({"input_file", "document", "file", "input_audio", "audio_url", "input_video", "video_url", "video"})
_URLS = ("image_url", "video_url", "audio_url")
_STORED = frozenset({"item_reference", "container_upload"})


def reference_in(conversation: Any) -> str | None:
    """The name of the first member that is one; None when there is none."""
    left: list[Any] = [conversation]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(cast("list[Any]", value))
        elif isinstance(value, dict):
            part = cast("dict[str, Any]", value)
            if found := _reference(part):
                return found
            # what a tool was called with is the program's own, whatever its members are called
            left.extend(inner for name, inner in part.items() if not (name == "input" and "name" in part))
    return None


def _reference(part: dict[str, Any]) -> str | None:
    kind = part.get("type")  # some servers ask for none
    if kind is not None and not isinstance(kind, str):
        return None
    if kind in _STORED:
        return kind
    if kind is not None and kind not in _IMAGES and kind not in _FILES:
        return None
    for name in ("file_id", "file_url"):
        if part.get(name):
            return name
    file = part.get("file")
    if isinstance(file, dict) and cast("dict[str, Any]", file).get("file_id"):
        return "file_id"
    for name in _URLS:
        named = part.get(name)
        url = cast("dict[str, Any]", named).get("url") if isinstance(named, dict) else named
        if url is not None and not (isinstance(url, str) and url[:5].lower() == "data:"):
            return name
    source = part.get("source")
    if isinstance(source, dict) and cast("dict[str, Any]", source).get("type") in ("url", "file"):
        return "source"
    return None
