"""Media: images and documents within a conversation; a few hundred bytes of one may be tens of thousands of tokens.

Model requests count them, so that what is held for a call covers them.
"""

from __future__ import annotations

import re
from typing import Any, cast

from atoll.services.models.meter import BYTES_PER_TOKEN

_IMAGES = frozenset({"image", "input_image", "image_url", "computer_screenshot", "image_generation_call"})
_DOCUMENTS = frozenset({"document", "file", "input_file", "video", "video_url", "input_video"})
_WORDS = frozenset({"text", "content"})  # sources of documents that are no more than their bytes
# What a request without any of these has none; `\u0069mage` is one too.
HINT = re.compile(rb'"(?:' + "|".join(sorted(_IMAGES | _DOCUMENTS)).encode() + rb')"|\\u00[2-7]', re.IGNORECASE)


def media_tokens(conversation: Any, image_tokens: int, document_tokens: int) -> int:
    """The tokens that its images and documents may be beyond what their bytes are counted as."""
    beyond = 0
    left: list[Any] = [conversation]
    while left:
        value = left.pop()
        if isinstance(value, list):
            left.extend(cast("list[Any]", value))
        elif isinstance(value, dict):
            part = cast("dict[str, Any]", value)
            least = image_tokens if _is_image(part) else document_tokens if _is_document(part) else 0
            if least:
                beyond += max(0, least - _chars(part) // BYTES_PER_TOKEN)
            # what a tool was called with is the program's own, whatever its members are called
            left.extend(inner for name, inner in part.items() if not (name == "input" and "name" in part))
    return beyond


def _is_image(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    return kind in _IMAGES if isinstance(kind, str) else "image_url" in part  # some servers ask for no type


def _is_document(part: dict[str, Any]) -> bool:
    kind = part.get("type")
    if not isinstance(kind, str):
        return "video_url" in part
    source = part.get("source")
    words = isinstance(source, dict) and cast("dict[str, Any]", source).get("type") in _WORDS
    return kind in _DOCUMENTS and not words


def _chars(part: dict[str, Any]) -> int:
    """Of its data, which stands in it or one level below."""
    inner = [part, *(cast("dict[str, Any]", value) for value in part.values() if isinstance(value, dict))]
    return sum(len(value) for one in inner for value in one.values() if isinstance(value, str))
