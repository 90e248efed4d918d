"""References: parts of a conversation that name a file or URL in place of content; the provider would fetch them.

Its files lie below one key for all tenants, and its network is a way out for a sandbox that has none.
"""

from __future__ import annotations

import re
from typing import Any, cast

# What a request without any of these has no reference; `\u0066ile_id` is one too.
HINT = re.compile(
    rb'"(?:file_id|file_url|image_url|item_reference|container_upload)"|"source"\s*:|\\u00[2-7]', re.IGNORECASE
)
_PARTS = frozenset({"input_image", "input_file", "image_url", "image", "document", "file", "input_audio"})
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
    kind = part.get("type")
    if kind in _STORED:
        return str(kind)
    if kind not in _PARTS:
        return None
    for name in ("file_id", "file_url"):
        if part.get(name):
            return name
    file = part.get("file")
    if isinstance(file, dict) and cast("dict[str, Any]", file).get("file_id"):
        return "file_id"
    image = part.get("image_url")
    url = cast("dict[str, Any]", image).get("url") if isinstance(image, dict) else image
    if url is not None and not (isinstance(url, str) and url[:5].lower() == "data:"):
        return "image_url"
    source = part.get("source")
    if isinstance(source, dict) and cast("dict[str, Any]", source).get("type") in ("url", "file"):
        return "source"
    return None
