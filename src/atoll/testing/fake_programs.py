"""The programs of a fake sandbox: a few small ones and a shell that knows words, variables, `;`, `&&`, `||` and `>`.

Enough for tests of what surrounds sandboxes. Add one with `PROGRAMS["name"] = program`, or give FakeRuntime its own.
"""

from __future__ import annotations

import asyncio
import shlex
import signal
from collections.abc import Awaitable, Callable, Sequence

from atoll.domain.errors import AtollError
from atoll.sidekick.protocol import STDERR, STDOUT
from atoll.testing.fake_files import FakeFiles
from atoll.testing.fake_processes import FakeProcess
from atoll.testing.fake_tar import fake_tar

Command = Callable[["Context", list[str]], Awaitable[int]]
FLOOD_BYTES = 65_536
JOB = "# atoll job"  # how the script of a background job's loop begins


class Context:
    """A process together with its sandbox's files and open ports; `out` collects what `>` redirects."""

    def __init__(self, process: FakeProcess, files: FakeFiles, listening: set[int]) -> None:
        self.process = process
        self.files = files
        self.listening = listening
        self.stream = STDOUT
        self.redirected: bytearray | None = None
        self.last = 0

    async def out(self, data: bytes) -> None:
        if self.redirected is not None:
            self.redirected += data
        else:
            await self.process.write(data, self.stream)

    def path(self, name: str) -> str:
        return name if name.startswith("/") else f"{self.process.cwd}/{name}"


class Leave(Exception):
    """The shell's `exit`."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(code)


async def run(context: Context) -> int:
    """The process's program: 127 when there is none of that name."""
    try:
        return await _call(context, list(context.process.spec.argv))
    except Leave as leave:
        return leave.code


def program_of(argv: Sequence[str]) -> Command | None:
    """None where there is none of that name."""
    return PROGRAMS.get(argv[0].rsplit("/", 1)[-1])


async def _call(context: Context, argv: list[str]) -> int:
    program = program_of(argv)
    if program is None:
        await context.process.complain(f"{argv[0]}: command not found")
        return 127
    return await program(context, argv[1:])


async def _true(_context: Context, _args: list[str]) -> int:
    return 0


async def _false(_context: Context, _args: list[str]) -> int:
    return 1


async def _echo(context: Context, args: list[str]) -> int:
    end = b"\n"
    if args[:1] == ["-n"]:
        args, end = args[1:], b""
    await context.out(" ".join(args).encode() + end)
    return 0


async def _cat(context: Context, args: list[str]) -> int:
    for name in args:
        try:
            await context.out(context.files.read(context.path(name))[1])
        except AtollError as error:
            await context.process.complain(f"cat: {error.message}")
            return 1
    if not args:
        while data := await context.process.read():
            await context.out(data)
    return 0


async def _sleep(_context: Context, args: list[str]) -> int:
    await asyncio.sleep(float(args[0]) if args else 0)
    return 0


async def _env(context: Context, _args: list[str]) -> int:
    await context.out("".join(f"{k}={v}\n" for k, v in sorted(context.process.env.items())).encode())
    return 0


async def _pwd(context: Context, _args: list[str]) -> int:
    await context.out(context.process.cwd.encode() + b"\n")
    return 0


async def _exit(context: Context, args: list[str]) -> int:
    raise Leave(int(args[0]) if args else context.last)


async def _kill(context: Context, args: list[str]) -> int:
    """`kill -N $$` only: of itself."""
    number = args[0].lstrip("-").removeprefix("SIG") if len(args) > 1 else "TERM"
    context.process.signal(int(number) if number.isdigit() else signal.Signals[f"SIG{number}"])
    await asyncio.sleep(0)
    return 0


async def _trap(context: Context, args: list[str]) -> int:
    """`trap '' TERM`: ignore a signal."""
    for name in args[1:]:
        context.process.ignored.add(signal.Signals[f"SIG{name.removeprefix('SIG')}"])
    return 0


async def _stty(context: Context, _args: list[str]) -> int:
    await context.out(f"{context.process.rows} {context.process.cols}\n".encode())
    return 0


async def _tty(context: Context, _args: list[str]) -> int:
    await context.out(b"/dev/pts/0\n" if context.process.spec.tty else b"not a tty\n")
    return 0 if context.process.spec.tty else 1


async def _flood(context: Context, args: list[str]) -> int:
    """`flood N`: N bytes of output, numbered lines of 16 bytes."""
    size = int(args[0])
    for at in range(0, size, FLOOD_BYTES):
        lines = b"".join(b"%015d\n" % number for number in range(at // 16, (at + FLOOD_BYTES) // 16))
        await context.out(lines[: size - at])
    return 0


async def _listen(context: Context, args: list[str]) -> int:
    """`listen PORT`: answer every connection with what it sends, until killed."""
    port = int(args[0])
    context.listening.add(port)
    try:
        await context.out(b"listening\n")
        await asyncio.Event().wait()
    finally:
        context.listening.discard(port)
    return 0


async def _mkdir(context: Context, args: list[str]) -> int:
    for name in args:
        if name != "-p":
            context.files.make_dir(context.path(name))
    return 0


async def _touch(context: Context, args: list[str]) -> int:
    for name in args:
        context.files.write(context.path(name), b"")
    return 0


async def _rm(context: Context, args: list[str]) -> int:
    for name in (name for name in args if not name.startswith("-")):
        context.files.remove(context.path(name), recursive=True)
    return 0


async def _ln(context: Context, args: list[str]) -> int:
    """`ln -s TARGET NAME` only."""
    context.files.link(context.path(args[2]), args[1])
    return 0


async def _ls(context: Context, args: list[str]) -> int:
    names = [entry.name for entry in context.files.list(context.path(args[0] if args else "."))]
    await context.out("".join(f"{name}\n" for name in names).encode())
    return 0


async def _cd(context: Context, args: list[str]) -> int:
    context.process.cwd = context.path(args[0] if args else "/home/user")
    return 0


async def _export(context: Context, args: list[str]) -> int:
    for word in args:
        name, _, value = word.partition("=")
        context.process.env[name] = value
    return 0


async def _id(context: Context, args: list[str]) -> int:
    await context.out(b"1000\n" if args == ["-u"] else b"uid=1000(user) gid=1000(user) groups=1000(user)\n")
    return 0


async def _shell(context: Context, args: list[str]) -> int:
    """`sh -c SCRIPT`, or line by line from stdin."""
    if args[:1] and args[0].startswith("-") and args[0].endswith("c"):
        return await (_job(context, args[3:]) if args[1].startswith(JOB) else _script(context, args[1]))
    pending = b""
    interactive = context.process.spec.tty
    if interactive:
        await context.out(b"$ ")
    while data := await context.process.read():
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            context.last = await _script(context, line.decode(errors="replace"))
            if interactive:
                await context.out(b"$ ")
    return await _script(context, pending.decode(errors="replace")) if pending else context.last


async def _job(context: Context, args: list[str]) -> int:
    """A background job's loop: `SECONDS COMMAND...`."""
    runs = failed = 0
    while True:
        try:
            code = await _call(context, args[1:])
        except Leave as leave:
            code = leave.code
        runs, failed = runs + 1, failed + (code != 0)
        await context.process.complain(f"{runs} {failed} {code}")
        await asyncio.sleep(float(args[0]))


async def _script(context: Context, script: str) -> int:
    for line in script.splitlines():
        run_next = True
        for connective, words in _commands(line):
            run_next = {"&&": context.last == 0, "||": context.last != 0}.get(connective, True)
            if run_next and words:
                context.last = await _simple(context, [_expand(context, word) for word in words])
    return context.last


def _commands(line: str) -> list[tuple[str, list[str]]]:
    """(connective before it, words) of each simple command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|>")
    lexer.whitespace_split = True
    commands: list[tuple[str, list[str]]] = [("", [])]
    for token in lexer:
        if token in (";", "&&", "||"):
            commands.append((token, []))
        else:
            commands[-1][1].append(token)
    return commands


def _expand(context: Context, word: str) -> str:
    for name, value in sorted(context.process.env.items(), key=lambda item: -len(item[0])):
        word = word.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return word.replace("$$", str(context.process.pid)).replace("$?", str(context.last))


async def _simple(context: Context, words: list[str]) -> int:
    target, appends, stream = None, False, context.stream
    while len(words) > 2 and words[-2] in (">", ">>"):
        target, appends = words[-1], words[-2] == ">>"
        words = words[:-2]
    if words[-2:] == [">&", "2"]:
        words, context.stream = words[:-2], STDERR
    if len(words) == 1 and "=" in words[0] and words[0].split("=")[0].isidentifier():
        return await _export(context, words)
    if target is not None:
        context.redirected = bytearray()
    try:
        return await _call(context, words)
    finally:
        if target is not None and context.redirected is not None:
            path, data = context.path(target), bytes(context.redirected)
            context.redirected = None
            before = context.files.read(path)[1] if appends and _exists(context, path) else b""
            context.files.write(path, before + data)
        context.stream = stream


def _exists(context: Context, path: str) -> bool:
    try:
        context.files.read(path)
    except AtollError:
        return False
    return True


PROGRAMS: dict[str, Command] = {
    "true": _true,
    "false": _false,
    "echo": _echo,
    "cat": _cat,
    "sleep": _sleep,
    "env": _env,
    "pwd": _pwd,
    "exit": _exit,
    "kill": _kill,
    "trap": _trap,
    "stty": _stty,
    "tty": _tty,
    "flood": _flood,
    "listen": _listen,
    "mkdir": _mkdir,
    "touch": _touch,
    "rm": _rm,
    "ln": _ln,
    "ls": _ls,
    "cd": _cd,
    "export": _export,
    "id": _id,
    "sh": _shell,
    "bash": _shell,
    "tar": fake_tar,
}
