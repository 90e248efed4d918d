"""The one rule about paths inside sandboxes, for every door: file service, template files, uploads and downloads."""

from __future__ import annotations

from atoll.domain.errors import InvalidInput

PATH_BYTES_MAX = 4_096


def check_path(path: object, *, field: str = "path", bytes_max: int = PATH_BYTES_MAX) -> str:
    """The path itself; InvalidInput(field) unless it is text of 1 to `bytes_max` bytes of UTF-8 without NUL.

    `..`, backslashes and percent signs are ordinary: the sidekick resolves the path inside, as the sandbox.
    """
    if not isinstance(path, str):
        raise InvalidInput(f"{field} must be text", field=field)
    if not path:
        raise InvalidInput(f"{field} must not be empty", field=field)
    if "\0" in path:
        raise InvalidInput(f"{field} must not contain NUL", field=field)
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidInput(f"{field} must be valid UTF-8", field=field) from None
    if size > bytes_max:
        raise InvalidInput(f"{field} must be at most {bytes_max} bytes, not {size}", field=field)
    return path


def absolute(path: str, work_dir: str) -> str:
    """`path` as it is when absolute, else below `work_dir`; nothing is resolved here."""
    return path if path.startswith("/") else work_dir.rstrip("/") + "/" + path
