"""The same small thing done by other tools: an isolated `echo hi` by bubblewrap, crun and docker.

`bench.interactive` runs this as a small process of its own and asks for one round of one tool at a time.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from bench.floor import LIBC, MNT_DETACH, enter_private_mounts

DOCKER_IMAGE = "atoll-bench:echo"
ECHO = ["/bin/echo", "hi"]
LINKS = {"bin": "usr/bin", "lib": "usr/lib", "lib64": "usr/lib64"}


def installed(program: str) -> bool:
    return shutil.which(program) is not None


def why_not(tool: str) -> str:
    """Empty when `tool` can be measured here, else the reason why not."""
    if not shutil.which({"bubblewrap": "bwrap"}.get(tool, tool)):
        return "not installed"
    if tool == "crun" and os.getuid() != 0:
        return "not measured: needs root"
    if tool == "docker":
        asked = subprocess.run(["docker", "info"], capture_output=True, timeout=10)
        return "" if asked.returncode == 0 else "not measured: no engine runs"
    return ""


def bubblewrap_argv() -> list[str]:
    links = [part for name, target in LINKS.items() for part in ("--symlink", target, f"/{name}")]
    return [
        *("bwrap", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--ro-bind", "/usr", "/usr"),
        *(*links, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", *ECHO),
    ]


def crun_bundle(bundle: Path) -> None:
    """An OCI bundle with the host's /usr read-only and the same namespaces as the floor."""
    rootfs = bundle / "rootfs"
    for name in ("usr", "proc", "dev", "tmp"):
        (rootfs / name).mkdir(parents=True)
    for name, target in LINKS.items():
        (rootfs / name).symlink_to(target)
    config = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ECHO, "cwd": "/", "env": ["PATH=/usr/bin"]},
        "root": {"path": "rootfs", "readonly": True},
        "mounts": [
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["bind", "ro"]},
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("mount", "pid", "network", "ipc", "uts")]},
    }
    (bundle / "config.json").write_text(json.dumps(config))


def docker_image() -> None:
    """An image that holds /bin/echo and the libraries it needs, and nothing else."""
    listed = subprocess.run(["ldd", "/bin/echo"], capture_output=True, text=True, check=True).stdout
    libraries = [word for word in listed.split() if word.startswith("/")]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path in ["/bin/echo", *libraries]:
            tar.add(os.path.realpath(path), arcname=path.lstrip("/"))
    subprocess.run(
        ["docker", "import", "-", DOCKER_IMAGE], input=packed.getvalue(), check=True, capture_output=True, timeout=60
    )


def hide_the_second_hierarchy() -> None:
    """crun refuses hosts that mount cgroup v1 and v2 side by side; in our private mount namespace v2 can go."""
    enter_private_mounts()
    if os.path.ismount("/sys/fs/cgroup/unified"):
        LIBC.umount2(b"/sys/fs/cgroup/unified", MNT_DETACH)


def run(argv: list[str]) -> tuple[float, float]:
    """Milliseconds to the output of echo, and of the whole run, until nothing is left."""
    program = shutil.which(argv[0]) or argv[0]
    receive, send = os.pipe()
    began = time.perf_counter()
    pid = os.posix_spawn(program, argv, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, send, 1)])
    os.close(send)
    said = os.read(receive, 100)
    heard = time.perf_counter()
    _, status = os.waitpid(pid, 0)
    ended = time.perf_counter()
    os.close(receive)
    if status or said != b"hi\n":
        raise RuntimeError(f"{argv[0]} said {said!r} and ended with {os.waitstatus_to_exitcode(status)}")
    return (heard - began) * 1e3, (ended - began) * 1e3


def main() -> None:
    """One round for each line on stdin; the line is the tool's name, the answer what `run` measured."""
    bundle = Path(tempfile.mkdtemp(prefix="atoll-crun-"))
    if os.getuid() == 0:
        hide_the_second_hierarchy()
    commands = {
        "bubblewrap": bubblewrap_argv(),
        "crun": ["crun", "run", "--bundle", str(bundle), f"atoll-bench-{os.getpid()}"],
        "docker": ["docker", "run", "--rm", "--network", "none", DOCKER_IMAGE, *ECHO],
    }
    prepared: set[str] = set()
    prepare = {"crun": lambda: crun_bundle(bundle), "docker": docker_image, "bubblewrap": lambda: None}
    try:
        for line in sys.stdin:
            tool = line.strip()
            if tool not in prepared:
                prepare[tool]()
                prepared.add(tool)
            print(*(f"{value:.4f}" for value in run(commands[tool])), flush=True)
    finally:
        shutil.rmtree(bundle)
        if "docker" in prepared:
            subprocess.run(["docker", "rmi", DOCKER_IMAGE], capture_output=True, timeout=60)


if __name__ == "__main__":
    main()
