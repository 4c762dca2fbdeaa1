"""Process above all processes of the functions: it bounds their output, and ends them all with the service.

Run as a module with the descriptor of a socket for the fork server, which it starts. It runs no code of users, and
adopts what their code leaves behind. It ends when its standard input is closed, for any reason.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from math import inf
from time import monotonic

from service.serving.confinement import adopt_orphans, end_with_parent, kill_descendants, take_priority_of_parent

OUTPUT_BYTES = 64 << 10
"""Output of the functions that is passed on at once."""
OUTPUT_BYTES_PER_SECOND = 100
"""Further output that is passed on, in the long run; 8.6 MB a day."""
_NOTE_SECONDS = 60
_PIECE_BYTES = select.PIPE_BUF  # a pipe that is ready for writing has room for it


def main(descriptor: int) -> None:
    """Start the fork server, pass on its output and that of its workers, and end them all when the service ends."""
    adopt_orphans()
    take_priority_of_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to the whole process group when the service stops
        signal.signal(number, signal.SIG_IGN)
    output, theirs = os.pipe()
    if os.fork() == 0:
        end_with_parent()
        os.setsid()
        take_priority_of_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        os.close(output)
        os.close(theirs)
        from service.serving.fork_server import main as serve  # heavy, and not needed here

        serve(descriptor)
    os.close(descriptor)
    os.close(theirs)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    relay(output, 2, until=0)
    kill_descendants()


def relay(source: int, target: int, *, until: int) -> None:
    """Copy one file descriptor to another at a bounded rate, until a third one is closed; the rest is dropped."""
    poll, writable = select.poll(), select.poll()
    poll.register(until, select.POLLIN)
    poll.register(source, select.POLLIN)
    writable.register(target, select.POLLOUT)
    allowed, since, dropped, noted_at = float(OUTPUT_BYTES), monotonic(), 0, -inf

    def write(data: bytes) -> int:
        """Return the number of bytes that could be written without waiting."""
        written = 0
        while written < len(data) and any(event == select.POLLOUT for _, event in writable.poll(0)):
            try:
                written += os.write(target, data[written : written + _PIECE_BYTES])
            except OSError:  # a full disk, or a pipe that was closed meanwhile: the functions go on
                break
        return written

    while True:
        ready = [descriptor for descriptor, _ in poll.poll(1000 * _NOTE_SECONDS if dropped else None)]
        if until in ready:
            return
        now = monotonic()
        if source in ready:
            data = os.read(source, 1 << 16)
            if not data:
                poll.unregister(source)
            allowed = min(OUTPUT_BYTES, allowed + OUTPUT_BYTES_PER_SECOND * (now - since))
            since = now
            written = write(data[: int(allowed)])
            allowed -= written
            dropped += len(data) - written
        if dropped and now - noted_at >= _NOTE_SECONDS:
            note = b"\nslicing functions: %d bytes of output dropped\n" % dropped
            if write(note) == len(note):  # else again with the next output
                dropped, noted_at = 0, now


if __name__ == "__main__":
    main(int(sys.argv[1]))
