"""Environment files: variables in .env files of a sandbox, read and changed with their comments and order kept."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Mapping, Sequence

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from atoll.domain.errors import InvalidInput, NotFound, TooLarge
from atoll.domain.key import Scope
from atoll.domain.principal import Principal
from atoll.services.locks import Locks
from atoll.services.sandboxes import Sandboxes

DEFAULT_FILE = ".env"  # in the work directory
FILE_BYTES_MAX = 256 * 1024
VARIABLES_MAX = 1000
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,255}", re.ASCII)
_NEW_MODE = 0o600
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*", re.ASCII)
_HEAD = re.compile(r"\s*(?:export\s+)?[^=\s]+\s*=[^\S\r\n]*")
_QUOTED = re.compile(r"'(?:\\'|[^'])*'|\"(?:\\\"|[^\"])*\"")
_BEHIND = re.compile(r"[^\S\r\n]+#[^\r\n]*")
BLANKS_MAX = 256  # in a row: to read them takes the square of their number
_TOO_BLANK = re.compile(rf"[^\S\r\n]{{{BLANKS_MAX + 1}}}")


class EnvFiles:
    """Paths as for `Files`; one change of a file at a time."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes
        self._files = sandboxes.files
        self._locks = Locks()

    async def read(self, principal: Principal, sandbox_id: str, file: str = DEFAULT_FILE) -> dict[str, str]:
        """Needs `read`. NotFound; InvalidInput `file` for what is no text, TooLarge."""
        return await asyncio.to_thread(values_in, await self._text(principal, sandbox_id, file))

    async def exists(self, principal: Principal, sandbox_id: str, file: str = DEFAULT_FILE) -> bool:
        """Whether there is such a file, or a link. Needs `read`."""
        try:
            return (await self._files.stat(principal, sandbox_id, file)).kind in ("file", "symlink")
        except NotFound:
            await self._sandboxes.get(principal, sandbox_id)  # the sandbox itself is there
            return False

    async def set(
        self, principal: Principal, sandbox_id: str, variables: Mapping[str, str], file: str = DEFAULT_FILE
    ) -> list[str]:
        """Set them, in a file that is made when there is none; their names. Needs `read` and `write`. InvalidInput
        `variables` for a name or value that no such file can hold."""
        await self._may_change(principal, sandbox_id)
        if len(variables) > VARIABLES_MAX:
            raise InvalidInput(f"variables: at most {VARIABLES_MAX} at once", field="variables")
        if sum(len(name) + len(value) for name, value in variables.items()) > FILE_BYTES_MAX:
            raise TooLarge(f"an environment file has at most {FILE_BYTES_MAX} bytes")
        lines = await asyncio.to_thread(lambda: {name: _line(name, value) for name, value in variables.items()})
        async with self._locks.hold(f"{sandbox_id} {file}"):
            try:
                before, mode = await self._text(principal, sandbox_id, file), None
            except NotFound:
                await self._sandboxes.get(principal, sandbox_id)
                before, mode = "", _NEW_MODE
            after = await asyncio.to_thread(with_lines, before, lines)
            await self._write(principal, sandbox_id, file, after, mode)
        return list(variables)

    async def unset(
        self, principal: Principal, sandbox_id: str, names: Sequence[str], file: str = DEFAULT_FILE
    ) -> list[str]:
        """Take them out; those that were there. Needs `read` and `write`. NotFound without such a file."""
        await self._may_change(principal, sandbox_id)
        if len(names) > VARIABLES_MAX:
            raise InvalidInput(f"keys: at most {VARIABLES_MAX} at once", field="keys")
        async with self._locks.hold(f"{sandbox_id} {file}"):
            before = await self._text(principal, sandbox_id, file)
            bindings = await asyncio.to_thread(lambda: list(parse_stream(io.StringIO(before))))
            there = {binding.key for binding in bindings if binding.key is not None}
            kept = "".join(one.original.string for one in bindings if one.key is None or one.key not in names)
            await self._write(principal, sandbox_id, file, kept, None)
        return [name for name in dict.fromkeys(names) if name in there]

    async def _may_change(self, principal: Principal, sandbox_id: str) -> None:
        principal.require(Scope.READ)
        await self._sandboxes.acting(principal, sandbox_id, Scope.WRITE)

    async def _text(self, principal: Principal, sandbox_id: str, file: str) -> str:
        entry, chunks = await self._files.read(principal, sandbox_id, file)
        data = bytearray()
        try:
            async for chunk in chunks:
                data += chunk
                if max(len(data), entry.size) > FILE_BYTES_MAX:
                    raise TooLarge(f"an environment file has at most {FILE_BYTES_MAX} bytes")
        finally:
            await chunks.aclose()  # type: ignore[attr-defined] # pyright: ignore
        try:
            text = data.decode()
        except UnicodeDecodeError:
            raise InvalidInput("file: is not UTF-8 text", field="file") from None
        _check_blanks(text, "file")
        return text

    async def _write(self, principal: Principal, sandbox_id: str, file: str, text: str, mode: int | None) -> None:
        data = text.encode()
        if len(data) > FILE_BYTES_MAX:
            raise TooLarge(f"an environment file has at most {FILE_BYTES_MAX} bytes")

        async def pieces() -> AsyncIterator[bytes]:
            yield data

        await self._files.write(principal, sandbox_id, file, pieces(), mode=mode)


def values_in(text: str) -> dict[str, str]:
    """The variables as they stand: nothing in them is taken for another variable. A name without a value is empty."""
    return {name: value or "" for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items()}


def with_lines(text: str, lines: Mapping[str, str]) -> str:
    """The text of a file with these variables set: in their place where they stand, else at the end."""
    bindings = list(parse_stream(io.StringIO(text)))
    last = {binding.key: number for number, binding in enumerate(bindings) if binding.key in lines}
    out = "".join(
        _in_place(binding, lines[binding.key]) if binding.key and last.get(binding.key) == number
        else binding.original.string
        for number, binding in enumerate(bindings)
    )  # fmt: skip
    new = [line for name, line in lines.items() if name not in last]
    if new and out and not out.endswith("\n"):
        out += "\n"
    return out + "".join(f"{line}\n" for line in new)


def _in_place(binding: Binding, line: str) -> str:
    """With what stood around it: blank lines, `export`, a comment behind it, the end of the line."""
    old = binding.original.string
    before = old[: len(old) - len(old.lstrip())]
    export = "export " if old.lstrip().startswith("export") and binding.key != "export" else ""
    end = old[len(old.rstrip("\r\n")) :]
    return f"{before}{export}{line}{_comment(old)}{end}"


def _comment(line: str) -> str:
    """What stands behind the value, with the blanks in front of it; in time that grows as the line does."""
    head = _HEAD.match(line)
    rest = line[head.end() :].rstrip("\r\n") if head else ""
    if rest[:1] in ("'", '"'):
        value = _QUOTED.match(rest)
        found = _BEHIND.match(rest, value.end()) if value else None
        return found.group() if found else ""
    at = rest.find("#")
    while at > 0 and not rest[at - 1].isspace():
        at = rest.find("#", at + 1)
    return rest[len(rest[:at].rstrip()) :] if at > 0 else ""


def _line(name: str, value: str) -> str:
    """NAME=value in the simplest form that is read again as exactly this value."""
    if NAME.fullmatch(name) is None:
        message = "variables: a name has letters, digits, _ . and -, and begins with no digit"
        raise InvalidInput(message, field="variables")
    if "\0" in value:
        raise InvalidInput(f"variables: the value of {name} has a NUL in it", field="variables")
    _check_blanks(value, "variables")
    doubled = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    plain = [value] if _PLAIN.fullmatch(value) else []
    for form in (*plain, f"'{value}'", f'"{doubled}"', value):
        try:
            if values_in(f"{name}={form}\n{name}_='x'\n") == {name: value, f"{name}_": "x"}:
                return f"{name}={form}"
        except UnicodeDecodeError:  # what looks like an escape and is none
            continue
    raise InvalidInput(f"variables: no environment file can hold the value of {name}", field="variables")


def _check_blanks(text: str, field: str) -> None:
    if _TOO_BLANK.search(text):
        raise InvalidInput(f"{field}: more than {BLANKS_MAX} blanks in a row", field=field)
