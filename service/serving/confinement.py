"""Limits of a process that runs users' functions: memory, files, processes, signals, network.

The kernel enforces them, without privileges: resource limits, a seccomp filter and a Landlock domain, which cannot be
removed. On processors without a table of system calls below, an audit hook refuses processes and the network in place
of the filter; native code can get around it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

FILE_BYTES = 64 << 20
"""Maximum size of a file that a function writes."""
OPEN_FILES = 256
_END_SECONDS = 5.0
_ATTEMPTS = 10

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
_SECCOMP_MODE_FILTER = 2
_CLONE_THREAD = 0x10000
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446  # on all processors
_MAKE_BLOCK, _MOVE, _SCOPE_SIGNALS = 1 << 11, 1 << 13, 1 << 1
_EPERM, _ENOSYS = 1, 38

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in seccomp_data, little-endian
_X32_BIT = 0x40000000

_SYSTEM_CALLS: dict[str, tuple[int, dict[str, int]]] = {
    "x86_64": (
        0xC000003E,
        {"clone": 56, "fork": 57, "vfork": 58, "execve": 59, "execveat": 322, "clone3": 435, "kill": 62, "tkill": 200}
        | {"tgkill": 234, "pidfd_send_signal": 424, "ptrace": 101, "process_vm_writev": 311, "pidfd_getfd": 438}
        | {"io_uring_setup": 425, "socket": 41, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "fcntl": 72}
        | {"ioctl": 16, "prlimit64": 302, "setrlimit": 160, "setpriority": 141, "ioprio_set": 251}
        | {"sched_setaffinity": 203, "sched_setscheduler": 144, "sched_setparam": 142, "sched_setattr": 314}
        | {"process_vm_readv": 310, "memfd_create": 319, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240},
    ),
    "aarch64": (
        0xC00000B7,
        {"clone": 220, "execve": 221, "execveat": 281, "clone3": 435, "kill": 129, "tkill": 130, "tgkill": 131}
        | {"pidfd_send_signal": 424, "ptrace": 117, "process_vm_writev": 271, "pidfd_getfd": 438}
        | {"io_uring_setup": 425, "socket": 198, "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "fcntl": 25}
        | {"ioctl": 29, "prlimit64": 261, "setrlimit": 164, "setpriority": 140, "ioprio_set": 30}
        | {"sched_setaffinity": 122, "sched_setscheduler": 119, "sched_setparam": 118, "sched_setattr": 274}
        | {"process_vm_readv": 270, "memfd_create": 279, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180},
    ),
}
"""Audit number of a processor, and its system calls that functions may not use, or not freely."""
_TO_ITSELF = ("kill", "tkill", "tgkill", "sched_setaffinity")
_SETS_OWNER = {"fcntl": (8, 15), "ioctl": (0x8901, 0x8902)}
"""Commands with which a file sends signals to another process: F_SETOWN, F_SETOWN_EX, FIOSETOWN, SIOCSPGRP."""
_NO_PROCESSES = "a slicing function may not start processes"
_NO_NETWORK = "a slicing function may not use the network, unless function_limits.network is true"
_PROCESS_EVENTS = ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen")
_NETWORK_EVENTS = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.sendto")

_libc = ctypes.CDLL(None, use_errno=True)


def confine(memory_mb: float | None, *, network: bool, keep: int) -> None:
    """Limit this process for ever.

    Parameters
    ----------
    memory_mb
        Address space beyond the current one; None for no limit.
    network
        Whether sockets may be used.
    keep
        File descriptor of a socket that stays open without a network.
    """
    with suppress(OSError):  # out of memory, the kernel should kill this process, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    if memory_mb is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + int(memory_mb * 2**20))
    _limit(resource.RLIMIT_FSIZE, FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, OPEN_FILES)
    if not network:
        for path in list(Path("/proc/self/fd").iterdir()):
            with suppress(OSError):  # the descriptor of the folder itself is closed by now
                if int(path.name) != keep and str(path.readlink()).startswith("socket:"):
                    os.close(int(path.name))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)  # else only a privileged process may limit itself; no set-user-id programs either
    _refuse_system_calls(network=network)
    _refuse_memory_of_others()
    messages = dict.fromkeys(_PROCESS_EVENTS, _NO_PROCESSES)
    if not network:
        messages |= dict.fromkeys(_NETWORK_EVENTS, _NO_NETWORK)

    def refuse(event: str, _arguments: Any) -> None:  # before the kernel does, with a reason
        if event in messages:
            raise PermissionError(messages[event])

    sys.addaudithook(refuse)


def _limit(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (limit, limit))


def _refuse_system_calls(*, network: bool) -> None:
    machine = os.uname().machine
    if machine not in _SYSTEM_CALLS:
        return
    program = b"".join(_filter(*_SYSTEM_CALLS[machine], network=network))
    code = ctypes.create_string_buffer(program, len(program))
    pointer = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))
    if _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(pointer)):
        sys.stderr.write("slicing functions: the kernel has no seccomp filter; processes and signals are not refused\n")


def _refuse_memory_of_others() -> None:
    """Enter a Landlock domain: the memory of processes outside it cannot be opened, nor signals be sent to them.

    The domain refuses nothing else. The kernel has signals since 6.12. Before, a rule set has to be about files, here
    about moving them from folder to folder, which is allowed everywhere; from 5.13 to 5.18, it is always refused.
    """
    for rules in ((0, 0, _SCOPE_SIGNALS), (_MOVE,), (_MAKE_BLOCK,)):
        size = 8 * len(rules)
        descriptor = _libc.syscall(_LANDLOCK_CREATE, struct.pack(f"={len(rules)}Q", *rules), ctypes.c_size_t(size), 0)
        if descriptor < 0:
            continue
        if rules == (_MOVE,):
            root = os.open("/", os.O_PATH)
            _libc.syscall(_LANDLOCK_ADD, descriptor, 1, struct.pack("=Qi", _MOVE, root), 0)
            os.close(root)
        is_entered = _libc.syscall(_LANDLOCK_RESTRICT, descriptor, 0) == 0
        os.close(descriptor)
        if is_entered:
            return
    sys.stderr.write("slicing functions: the kernel has no Landlock; /proc/PID/mem of other processes is not refused\n")


def _filter(architecture: int, calls: dict[str, int], *, network: bool) -> Iterator[bytes]:
    """Yield the instructions of a filter: 8 bytes each, in classic BPF."""
    refuse = _instruction(_RETURN, _ERROR | _EPERM)
    yield _instruction(_LOAD, _ARCHITECTURE)
    yield _instruction(_JUMP_EQUAL, architecture, if_true=1)
    yield refuse
    yield _instruction(_LOAD, _NUMBER)
    yield _instruction(_JUMP_GREATER_EQUAL, _X32_BIT, if_false=1)
    yield refuse
    for name, number in calls.items():
        if name == "socket" and network:
            continue
        if name == "clone3":  # its flags cannot be read here; the C library falls back to clone
            body = [_instruction(_RETURN, _ERROR | _ENOSYS)]
        elif name == "clone":
            allow = _instruction(_JUMP_BITS, _CLONE_THREAD, if_false=1)
            body = [_instruction(_LOAD, _FIRST_ARGUMENT), allow, _instruction(_RETURN, _ALLOW), refuse]
        elif name in _TO_ITSELF:  # 0 is the caller, or else its process group
            allow = _instruction(_JUMP_EQUAL, 0 if name == "sched_setaffinity" else os.getpid(), if_false=1)
            body = [_instruction(_LOAD, _FIRST_ARGUMENT), allow, _instruction(_RETURN, _ALLOW), refuse]
        elif name in _SETS_OWNER:
            one, other = _SETS_OWNER[name]
            tests = [_instruction(_JUMP_EQUAL, one, if_true=1), _instruction(_JUMP_EQUAL, other, if_false=1)]
            body = [_instruction(_LOAD, _FIRST_ARGUMENT + 8), *tests, refuse, _instruction(_RETURN, _ALLOW)]
        elif name == "prlimit64":  # limits may be read: the pointer to new ones is null
            low, high = (_instruction(_LOAD, _FIRST_ARGUMENT + 16 + word) for word in (0, 4))
            is_null = [low, _instruction(_JUMP_EQUAL, 0, if_false=3), high, _instruction(_JUMP_EQUAL, 0, if_false=1)]
            body = [*is_null, _instruction(_RETURN, _ALLOW), refuse]
        else:
            body = [refuse]
        yield _instruction(_JUMP_EQUAL, number, if_false=len(body))
        yield from body
    yield _instruction(_RETURN, _ALLOW)


def _instruction(code: int, value: int, *, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _prctl(option: int, *arguments: Any) -> int:
    given = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    return int(_libc.prctl(option, *given, *[ctypes.c_ulong(0)] * (4 - len(given))))


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, also of those in a session of their own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """Be killed when the parent process ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def take_priority_of_parent(niceness: int = 0) -> None:
    """Take the parent's priority for the CPU, lowered by a niceness, for the session of this process, too.

    Linux divides the CPU between sessions first (`sched_autogroup_enabled`): in a new one, the niceness of a process
    alone would change nothing for its parent. The first session of a machine or container has no niceness of its own.
    """
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        with suppress(OSError, ValueError):
            of_parent = int(Path(f"/proc/{os.getppid()}/autogroup").read_text().rpartition(" ")[2] or 0)
            if of_parent + niceness:
                _set_session_niceness(min(of_parent + niceness, 19))


def _set_session_niceness(niceness: int) -> None:
    for _ in range(_ATTEMPTS):  # without privileges, all users together have one call in 100 ms
        try:
            Path("/proc/self/autogroup").write_text(str(niceness))
        except BlockingIOError:
            sleep(0.1)
        else:
            return


def kill_descendants() -> None:
    """Kill all descendants of this process; returns when none is left, or after 5 s."""
    deadline = monotonic() + _END_SECONDS
    while (left := descendants(os.getpid())) and monotonic() < deadline:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with suppress(ChildProcessError):  # none is a child, or they are reaped by the kernel
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def descendants(ancestor: int) -> set[int]:
    """Return the process ids of all running descendants of a process."""
    parents, ended = dict[int, int](), set[int]()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # the process has ended
            fields = path.read_text(errors="replace").rpartition(")")[2].split()
            state, parent, threads = fields[0], int(fields[1]), int(fields[17])
            parents[process := int(path.parent.name)] = parent
            if state in "ZX" and threads <= 1:  # else only its first thread has ended; it may end during this loop
                ended.add(process)
    found, last = set[int](), {ancestor}
    while last := {process for process, parent in parents.items() if parent in last} - found:
        found |= last
    return found - ended
