"""The process that trains: it reads files, and writes files; it knows no store, and promotes nothing.

It is run as a module with a folder and how long it may take. It ends when its standard input does, which nobody
writes to: its parent has gone then. A sign of life comes from the first line on, so that what is slow to load is
loaded later.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

from service.errors import ServiceError
from service.jobs.training_spec import BEAT, REASON, RESULT, TrainingSpec

BEAT_SECONDS = 1.0
_NICER = 10
_GRACE_SECONDS = 60.0


class Heart:
    """Writes where the training stands, again and again, from a thread of its own.

    Parameters
    ----------
    file
        Replaced at every beat.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._beats = file, 0
        self._at = ("starting", 0.0)
        self._stop = Event()
        self._thread = Thread(target=self._beat, daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """End with a last beat."""
        self._stop.set()
        self._thread.join()

    def tell(self, stage: str, share: float) -> None:
        """Say what is being done, and the share of the whole that is done."""
        self._at = (stage, share)

    def _beat(self) -> None:
        more = True
        while more:
            more = not self._stop.wait(BEAT_SECONDS if self._beats else 0)
            self._beats += 1
            stage, share = self._at
            with suppress(OSError):
                write_whole(self._file, json.dumps({"beat": self._beats, "stage": stage, "share": share}))


def main(folder: Path, timeout_seconds: float) -> None:
    """Train and compare; leave the result, or else the reason, and end with code 1."""
    _settle(timeout_seconds)
    heart = Heart(folder / BEAT)
    heart.start()
    from models.errors import ModelError  # what is slow to load comes after the first beat
    from service.jobs.training_work import train_candidate
    from sfs.errors import SliceError

    reason = ""
    try:
        made = train_candidate(TrainingSpec.read(folder), folder, heart.tell)
        write_whole(folder / RESULT, json.dumps(made))
    except (ModelError, SliceError, ServiceError, OSError) as error:
        reason = str(error) or type(error).__name__
    except MemoryError:
        reason = "there was not enough memory"
    heart.stop()
    if reason:
        write_whole(folder / REASON, reason)
        sys.exit(1)


def write_whole(file: Path, text: str) -> None:
    """Write a file that is there whole, or as it was before."""
    beside = file.with_name(f".{file.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def _settle(timeout_seconds: float) -> None:
    """Take a place behind the service, and end with it."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to all processes, to make the service stop orderly
        signal.signal(number, signal.SIG_IGN)
    # A function may hold the interpreter for ever, and the service be gone, which no thread here would notice.
    signal.setitimer(signal.ITIMER_REAL, timeout_seconds + _GRACE_SECONDS)
    Thread(target=_end_with_parent, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICER)
    with suppress(OSError):  # if memory runs out, the kernel should take this process, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)  # and what functions have started


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
