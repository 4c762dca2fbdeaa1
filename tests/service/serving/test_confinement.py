"""Limits of the processes that run functions."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from factories import PATIENT_LIMITS

from service.serving.breaker import BreakerLimits
from service.serving.confinement import descendants
from service.serving.live_functions import LiveFunctions

REFUSED = {
    "forks": "os.fork()",
    "runs": "subprocess.run(['true'])",
    "forks_natively": "native(libc.fork())",
    "kills": "os.kill(os.getppid(), 9)",
    "kills_natively": "native(libc.kill(os.getppid(), 9))",
    "kills_by_queue": "native(libc.sigqueue(os.getpid(), 0, None))",
    "kills_by_file": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
    "kills_by_socket": "fcntl.ioctl(socket.socketpair()[0], 0x8901, struct.pack('i', os.getppid()))",
    "limits_another": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (1024, 1024))",
    "slows_another": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 1)",
    "pins_another": "os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0))",
    "reads_memory": "native(libc.process_vm_readv(os.getpid(), None, 0, None, 0, 0))",
    "opens_memory": "open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "keeps_files_in_memory": "os.memfd_create('kept')",
    "keeps_segments": "native(libc.shmget(0, 1 << 20, 0o1600))",
    "connects": "socket.create_connection(('127.0.0.1', 9))",
    "opens_a_socket_natively": "native(libc.socket(2, 1, 0))",
    "writes_a_large_file": "(x.folder / 'large').write_bytes(bytes(65 << 20))",
    "opens_files": "[open('/dev/null') for _ in range(300)]",
    "grows": "bytearray(2 << 30)",
}
CODE = """
import ctypes, fcntl, resource, socket, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)

def native(result):
    if result == -1:
        raise PermissionError(ctypes.get_errno(), "refused")
    if result == 0:
        os._exit(0)  # a child

@slicing_function()
def starts_a_thread(x):
    import threading
    done = []
    thread = threading.Thread(target=lambda: done.append(1))
    thread.start()
    thread.join()
    return done == [1]

@slicing_function()
def writes_a_file(x):
    return Path(x.folder, "small").write_bytes(bytes(100)) == 100

@slicing_function()
def moves_a_file(x):
    folder = Path(x.folder, "other")
    folder.mkdir(exist_ok=True)
    Path(x.folder, "moved").write_text("text")
    return Path(x.folder, "moved").rename(folder / "moved").read_text() == "text"

@slicing_function()
def limits_itself(x):
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    return resource.getrlimit(resource.RLIMIT_NOFILE) == (256, 256) and open("/proc/self/mem", "rb").close() is None

@slicing_function()
def opens_a_local_pair(x):
    return len(socket.socketpair()) == 2
"""
FUNCTION = "@slicing_function()\ndef {name}(x):\n    x = prepare(x)\n    {code}\n    return True\n"
PREPARE = (
    "\ndef prepare(x):\n    from types import SimpleNamespace\n    return SimpleNamespace(folder=Path(x.folder))\n"
)


@pytest.fixture
def live(live_of: Callable[..., LiveFunctions]) -> LiveFunctions:
    """All functions of this file."""
    refused = "".join(FUNCTION.format(name=name, code=code) for name, code in REFUSED.items())
    return live_of(CODE + PREPARE + refused, limits=BreakerLimits(20_000, 20_000, 20_000, faults=1000))


def test_a_function_is_refused_more_than_it_may_use(live: LiveFunctions, tmp_path: Any) -> None:
    """Processes, harm to others, the network, large or many files and much memory; threads and files are allowed."""
    rows = [{"folder": str(tmp_path)}]
    for _ in range(2):  # its process goes on
        runs = {run.name: run for run in live.apply(rows).stats}
        assert {name: run.first_fault for name, run in runs.items() if run.unknown and name not in REFUSED} == {}
        assert {name for name, run in runs.items() if run.unknown} == set(REFUSED)
    reasons = {name: next(iter(run.unknown)) for name, run in runs.items() if run.unknown}
    assert reasons.pop("grows") == "MemoryError"
    assert {reasons.pop("writes_a_large_file"), reasons.pop("opens_files")} == {"OSError"}
    assert set(reasons.values()) == {"PermissionError"}
    assert "may not start processes" in str(runs["forks"].first_fault)
    assert "function_limits.network" in str(runs["connects"].first_fault)


def test_the_network_can_be_allowed(live_of: Callable[..., LiveFunctions]) -> None:
    """By a setting."""
    code = (
        "import socket\n@slicing_function()\ndef opens(x):\n    with socket.socket() as each:\n"
        "        return each.connect_ex(('127.0.0.1', 1)) != 1"
    )
    limits = BreakerLimits(20_000, 20_000, 20_000, network=True)
    assert live_of(code, limits=limits).apply([{}]).matrix.member.tolist() == [[True]]
    assert live_of(code, limits=PATIENT_LIMITS).apply([{}]).stats[0].unknown == {"PermissionError": 1}


def test_a_process_counts_until_its_last_thread_has_ended(eventually: Callable[[Callable[[], bool]], None]) -> None:
    """Its children are found after its first thread."""
    code = (
        "import ctypes, subprocess, threading\n"
        "threading.Thread(target=threading.Event().wait, args=(600,)).start()\n"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert leader.stdout is not None
    child = int(leader.stdout.readline())
    eventually(lambda: ") Z " in Path(f"/proc/{leader.pid}/stat").read_text())
    assert {leader.pid, child} <= descendants(os.getpid())
    leader.kill()
    eventually(lambda: leader.pid not in descendants(os.getpid()))
    leader.wait()
    leader.stdout.close()
    os.kill(child, 9)
