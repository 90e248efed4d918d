"""The built-in `host` template: the host's programs read-only, a fresh /etc, nothing of the host's data.

`build` makes the small lower layer once, in the data folder; it says which host folders every sandbox sees besides.
"""

from __future__ import annotations

import json
import os
import sys

USER = "user"
UID = GID = 1000
HOME = "/home/user"

PROGRAMS = ("python3", "node", "bash", "git")
_SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# public parts of /etc that programs need; nothing here names users, hosts or secrets of the machine
_ETC_COPIES = (
    "alternatives",
    "ca-certificates.conf",
    "debian_version",
    "gitconfig.d",
    "inputrc",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "magic",
    "mime.types",
    "os-release",
    "perl",
    "pki/tls/certs",
    "protocols",
    "services",
    "shells",
    "ssl/certs",
    "ssl/openssl.cnf",
    "terminfo",
    "timezone",
)

# our own, not the machine's: an administrator's profile may name proxies and their passwords
_PROMPT = """[ -n "$BASH_VERSION" ] && PS1='\\u@\\h:\\w\\$ ' || PS1='$ '\n"""

_ETC_FILES = {
    "passwd": f"root:x:0:0:root:/root:/bin/bash\n{USER}:x:{UID}:{GID}:{USER}:{HOME}:/bin/bash\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\ntty:x:5:\n{USER}:x:{GID}:\nnogroup:x:65534:\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    "hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost\n",
    "hostname": "atoll\n",
    "bash.bashrc": _PROMPT,
    "profile": _PROMPT,
    "resolv.conf": "",
    "fstab": "",
}

# secrets as files lie there, in memory
SECRETS_FOLDER = "run/secrets"
SECRETS_BYTES = 2 * 2**20
SECRETS_FILES = 256

# made in every sandbox's own writable layer: the tenant owns them
WRITABLE_FOLDERS = (
    "home",
    "home/user",
    "opt",
    "srv",
    "mnt",
    "media",
    "var",
    "var/lib",
    "var/cache",
    "var/log",
    "run",
    SECRETS_FOLDER,
)
SHARED_FOLDERS = ("tmp", "var/tmp")  # mode 1777
_MOUNT_POINTS = ("proc", "dev", "sys", "root")
_PARTIAL = "host.partial"

# what an installation consists of, and what of it programs need to run
_NEEDED = ("bin", "lib", "lib64", "libexec", "include")
_INSTALLED = {*_NEEDED, "share", "sbin", "etc", "man", "doc", "ssl", "README.md", "LICENSE", "CHANGELOG.md"}


class HostTemplate:
    """What `build` made: the lower layer, the host folders to bind over it, and the PATH that finds the programs."""

    def __init__(self, layer: str, binds: list[str], path: str) -> None:
        self.layer = layer
        self.binds = binds
        self.path = path


def learn(folder: str, *, in_use: bool) -> HostTemplate:
    """`build` in a child of its own: what it has to import would stay in the node and in all its clones."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            template = build(folder, in_use=in_use)
            os.write(writing, json.dumps([template.layer, template.binds, template.path]).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    if not said:
        raise OSError(f"the host template could not be made in {folder}")
    return HostTemplate(*json.loads(said))


def build(folder: str, *, in_use: bool) -> HostTemplate:
    """Make the lower layer in `folder`, named after what is in it, and find the host's programs.

    Layers of an earlier host stay while they may be `in_use` below sandboxes that live on.
    """
    import shutil

    partial = f"{folder}/{_PARTIAL}"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(f"{partial}/etc", mode=0o755)
    for name in _MOUNT_POINTS:
        os.mkdir(f"{partial}/{name}", 0o755)
    binds: list[str] = []
    for system in _SYSTEM_FOLDERS:
        if os.path.islink(system):
            os.symlink(os.readlink(system), partial + system)
        elif os.path.isdir(system):
            os.makedirs(partial + system)
            binds.append(system)
    search: list[str] = []
    for program in PROGRAMS:
        prefix = _foreign_prefix(program)
        if prefix is None or f"{prefix}/bin" in search:
            continue
        for shared in _shared_folders(prefix):
            os.makedirs(partial + shared, exist_ok=True)
            binds.append(shared)
        search.append(f"{prefix}/bin")
    _fill_etc(f"{partial}/etc")
    layer = f"{folder}/host-{_digest(partial)}"
    if os.path.isdir(layer):
        shutil.rmtree(partial)
    else:
        os.rename(partial, layer)
    for name in [] if in_use else os.listdir(folder):
        if f"{folder}/{name}" != layer:
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
    standard = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"]
    return HostTemplate(layer, binds, ":".join([f"{HOME}/.local/bin", *standard, *search]))


def _digest(folder: str) -> str:
    import hashlib

    digest = hashlib.sha256()
    for here, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = f"{here}/{name}"
            mode = os.lstat(path).st_mode
            digest.update(f"{path[len(folder) :]}\0{mode}\0".encode(errors="surrogateescape"))
            if os.path.islink(path):
                digest.update(os.fsencode(os.readlink(path)))
            elif name in files:
                with open(path, "rb") as file:
                    digest.update(file.read())
    return digest.hexdigest()[:16]


def _shared_folders(prefix: str) -> list[str]:
    """What of an installation outside the system folders is shown: all of it, unless other things lie there too."""
    names = set(os.listdir(prefix))
    if names <= _INSTALLED and os.path.basename(prefix) != ".local":
        return [prefix]
    return [f"{prefix}/{name}" for name in _NEEDED if os.path.isdir(f"{prefix}/{name}")]


def _foreign_prefix(program: str) -> str | None:
    """The installation folder of a program that lives outside the system folders; None when it does not."""
    for folder in ("/usr/local/bin", "/usr/bin", "/bin"):
        if os.access(f"{folder}/{program}", os.X_OK) and _inside_system(os.path.realpath(f"{folder}/{program}")):
            return None
    import shutil

    found = shutil.which(program)
    real = os.path.realpath(found) if found else ""
    if program == "python3" and (not found or not _is_binary(real)):
        real = os.path.realpath(getattr(sys, "_base_executable", sys.executable))  # behind a version manager's shim
    if not real or not _is_binary(real) or _inside_system(real):
        return None
    folder, name = os.path.split(real)
    prefix = os.path.dirname(folder)
    if os.path.basename(folder) != "bin" or not name or prefix == "/":
        return None
    import pwd

    # a program in somebody's ~/bin is no installation: beside it lies what tenants must not see
    return None if prefix in {user.pw_dir for user in pwd.getpwall()} else prefix


def _inside_system(path: str) -> bool:
    return path.startswith(tuple(folder + "/" for folder in _SYSTEM_FOLDERS))


def _is_binary(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _fill_etc(etc: str) -> None:
    import shutil

    for name in _ETC_COPIES:
        source, target = f"/etc/{name}", f"{etc}/{name}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        try:
            if os.path.isdir(source):
                shutil.copytree(source, target, symlinks=True, ignore_dangling_symlinks=True)
            elif os.path.exists(source):
                shutil.copyfile(source, target)
        except (OSError, shutil.Error):
            continue  # unreadable for us: not for tenants either
    for name, text in _ETC_FILES.items():
        with open(f"{etc}/{name}", "w") as file:
            file.write(text)
    for folder, _, files in os.walk(etc):
        os.chmod(folder, 0o755)
        for name in files:
            if not os.path.islink(f"{folder}/{name}"):
                os.chmod(f"{folder}/{name}", 0o644)
