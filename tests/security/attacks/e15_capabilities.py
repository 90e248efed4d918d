"""Have, raise or inherit a capability."""

from __future__ import annotations

import ctypes
import struct

from prelude import attempt, in_child, libc

with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
    attempt(name, lambda name=name: status[name] if int(status[name], 16) else None)
attempt("no_new_privs", lambda: "off" if status["NoNewPrivs"] == "0" else None)
attempt("seccomp", lambda: "off" if status["Seccomp"] != "2" else None)
attempt("groups", lambda: status["Groups"].strip() or None)
attempt("root", lambda: status["Uid"] if "0" in status["Uid"].split() else None)
PR_SET_SECUREBITS, PR_CAP_AMBIENT, RAISE, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 28, 47, 2, 38, 4
for number in (0, 1, 6, 7, 12, 19, 21):
    attempt(f"ambient {number}", lambda n=number: in_child(lambda: libc.prctl(PR_CAP_AMBIENT, RAISE, n, 0, 0)))
attempt("securebits", lambda: in_child(lambda: libc.prctl(PR_SET_SECUREBITS, 0x3F, 0, 0, 0)))
attempt("clear no_new_privs", lambda: in_child(lambda: libc.prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0)))
for who in (0, 1):
    attempt(f"setuid {who}", lambda who=who: in_child(lambda: libc.setresuid(who, who, who)))
    attempt(f"setgid {who}", lambda who=who: in_child(lambda: libc.setresgid(who, who, who)))
attempt("setgroups", lambda: in_child(lambda: libc.setgroups(1, (ctypes.c_uint * 1)(0))))
HEADER = struct.pack("Ii", 0x20080522, 0)
ALL = struct.pack("IIIIII", 0xFFFF_FFFF, 0xFFFF_FFFF, 0, 0x1FF, 0x1FF, 0)
attempt("capset", lambda: in_child(lambda: libc.capset(HEADER, ALL)))
attempt("nice", lambda: in_child(lambda: libc.setpriority(0, 0, -20)))
attempt("real time", lambda: in_child(lambda: libc.sched_setscheduler(0, 1, struct.pack("i", 50))))
attempt("raise a limit", lambda: in_child(lambda: libc.setrlimit(7, struct.pack("QQ", 1 << 20, 1 << 20))))
attempt("core dumps", lambda: in_child(lambda: libc.setrlimit(4, struct.pack("QQ", 1 << 20, 1 << 20))))
