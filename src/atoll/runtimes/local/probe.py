"""The probe: what `doctor` runs inside a sandbox to see for itself that the isolation rules hold there.

Standard library only, in one text: it is written into the probe sandbox and run by the sandbox's own python3.
"""

PROGRAM = r'''
import ctypes, errno, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
out = {}

def check(name, ok, detail):
    out[name] = [bool(ok), str(detail)[:300]]

def fails(call, *wanted):
    """Whether the call fails with one of these errors."""
    ctypes.set_errno(0)
    try:
        result = call()
    except OSError as error:
        return error.errno in wanted, errno.errorcode.get(error.errno, error.errno)
    if isinstance(result, int) and result < 0:
        number = ctypes.get_errno()
        return number in wanted, errno.errorcode.get(number, number)
    return False, "it succeeded"

DENIED = (errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOENT, errno.ENOSYS)
status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
held = {"Cap" + n: status["Cap" + n] for n in ("Prm", "Eff", "Bnd", "Amb", "Inh") if int(status["Cap" + n], 16)}
check("capabilities", not held, held or "none")
for name, line, wanted in (("no_new_privs", "NoNewPrivs", "1"), ("seccomp", "Seccomp", "2")):
    check(name, status[line].strip() == wanted, line + " is " + status[line].strip())
writes = ["/proc/sys/" + n for n in ("kernel/core_pattern", "kernel/modprobe", "vm/drop_caches")]
writes.append("/proc/sysrq-trigger")
opened = [p for p in writes if not fails(lambda: os.close(os.open(p, os.O_WRONLY)), *DENIED)[0]]
check("proc_sys", not opened, opened or "not writable")

def reads(path):
    try:
        with open(path, "rb") as file:
            return bool(file.read(64))
    except OSError:
        return False

names = ("kcore", "keys", "key-users", "timer_list", "kallsyms", "kmsg", "interrupts")
told = ["/proc/" + n for n in names if reads("/proc/" + n)]
check("kernel_information", not told, told or "masked")
refused, why = fails(lambda: libc.mount(b"x", b"/mnt", b"cgroup2", 0, None), *DENIED)
check("cgroups", refused and not os.path.exists("/sys/fs/cgroup"), "mounting them: %s" % (why,))
check("mount", fails(lambda: libc.mount(b"x", b"/mnt", b"tmpfs", 0, None), *DENIED)[0], "mount(2) refused")
check("user_namespaces", fails(lambda: libc.unshare(0x10000000), *DENIED)[0], "unshare(2) refused")
seen = sum(n.isdigit() for n in os.listdir("/proc"))
check("foreign_processes", seen < 16, "%d processes in /proc" % seen)
check("raw_sockets", fails(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), *DENIED)[0], "refused")
check("packet_sockets", fails(lambda: socket.socket(17, socket.SOCK_RAW, 0), *DENIED, errno.EAFNOSUPPORT)[0], "refused")
links = sorted(name for _, name in socket.if_nameindex())
check("network", "lo" in links and len(links) <= 2, " ".join(links))
check("devices", fails(lambda: os.mknod("/tmp/x", 0o20666, os.makedev(1, 1)), *DENIED)[0], "mknod refused")
usr = os.statvfs("/usr")
check("programs_read_only", usr.f_flag & os.ST_RDONLY and usr.f_flag & os.ST_NOSUID,
      "/usr has mount flags 0x%x" % usr.f_flag)
root = os.statvfs("/")
check("disk_bounded", root.f_blocks * root.f_frsize <= LIMITS["disk_bytes"],
      "%d bytes" % (root.f_blocks * root.f_frsize))
check("inodes_bounded", 0 < root.f_files <= LIMITS["inodes"], "%d inodes" % root.f_files)
here = "/proc/self/fd/"
fds = [os.readlink(here + n) for n in os.listdir(here) if n not in "012" and os.path.exists(here + n)]
check("descriptors", all(f.startswith("/proc/") for f in fds),
      " ".join(["a program starts with 0, 1, 2", *fds]))
print(json.dumps(out))
'''
