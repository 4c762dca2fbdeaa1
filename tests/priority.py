"""Priority of processes under test: what the service does aside would wait for minutes on a busy machine."""

import os
from contextlib import suppress
from pathlib import Path

from service.serving.confinement import descendants


def raise_priority(ancestor: int) -> None:
    """Give the descendants of a process its own priority, where permitted: trainings and reports have a lower one."""
    with suppress(OSError):
        for pid in descendants(ancestor):
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, ancestor))
            Path(f"/proc/{pid}/autogroup").write_text("0")
