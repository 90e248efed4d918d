"""What the maker of a sandbox may keep with it: a small JSON object that Atoll gives back as it came."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from atoll.domain.errors import InvalidInput

BYTES_MAX = 16_384
DEPTH_MAX = 16


def checked_metadata(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy. InvalidInput, naming `metadata`, for what is too large, too deep, or could not be stored."""
    if not metadata:
        return {}
    if _depth(metadata, 0) > DEPTH_MAX:
        raise InvalidInput(f"metadata must be nested at most {DEPTH_MAX} deep", field="metadata")
    try:
        size = len(json.dumps(dict(metadata), allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, TypeError, UnicodeEncodeError):
        raise InvalidInput("metadata must be JSON", field="metadata") from None
    if size > BYTES_MAX:
        raise InvalidInput(f"metadata must be at most {BYTES_MAX} bytes as JSON", field="metadata")
    return dict(metadata)


def _depth(value: Any, so_far: int) -> int:
    if so_far > DEPTH_MAX or not isinstance(value, (dict, list)):
        return so_far
    inner = cast(dict[str, Any], value).values() if isinstance(value, dict) else cast(list[Any], value)
    return max((_depth(one, so_far + 1) for one in inner), default=so_far + 1)
