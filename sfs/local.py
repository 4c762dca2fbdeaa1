"""Engine of this machine: partitions one by one, or in several processes."""

from __future__ import annotations

import signal
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from sfs.errors import EngineError
from sfs.partitioned import PartitionOutcome, PartitionTask
from sfs.tables.partitions import Partition


class LocalEngine:
    """Runs partitions one by one in this process, or in several processes that end with this one.

    Parameters
    ----------
    workers
        Number of processes; 1 starts none. Each holds a batch of rows.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def run(
        self, task: PartitionTask, partitions: Sequence[Partition]
    ) -> Generator[tuple[int, PartitionOutcome], None, None]:
        """Yield position and outcome of every partition; see ``sfs.partitioned.Engine``."""
        if min(self.workers, len(partitions)) < 2:
            for position, partition in enumerate(partitions):
                yield position, task.outcome(partition)
            return
        waiting = list(enumerate(partitions))[::-1]
        workers: dict[Connection, _Worker] = {}
        try:
            for _ in range(min(self.workers, len(partitions))):
                worker = _Worker(task)
                workers[worker.connection] = worker
                worker.begin(*waiting.pop())
            while busy := [connection for connection, worker in workers.items() if worker.partition is not None]:
                for connection in wait(busy):
                    worker = workers[connection]  # type: ignore[index]  # only connections are waited for
                    yield worker.position, worker.result()
                    if waiting:
                        worker.begin(*waiting.pop())
        finally:
            for worker in workers.values():
                worker.end()


class _Worker:
    """Process with a pipe of its own, and the partition that it computes."""

    def __init__(self, task: PartitionTask) -> None:
        context = get_context("spawn")  # a copy of this process could have locked locks
        self.connection, theirs = context.Pipe()
        self.position = 0
        self.partition: Partition | None = None
        self._process: BaseProcess = context.Process(target=_work, args=(theirs, task), daemon=True)
        self._process.start()
        theirs.close()  # the pipe ends with the process, on either side

    def begin(self, position: int, partition: Partition) -> None:
        self.position, self.partition = position, partition
        with suppress(OSError):  # an ended process is found by its result
            self.connection.send(partition)

    def result(self) -> PartitionOutcome:
        partition, self.partition = self.partition, None
        try:
            outcome: PartitionOutcome = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            path = None if partition is None else partition.path
            raise EngineError(
                f"{path}: the worker process ended with exit code {self._process.exitcode} (negative: a signal; -9 may "
                "be a lack of memory): run the command again with fewer --workers"
            ) from None
        return outcome

    def end(self) -> None:
        self.connection.close()
        self._process.terminate()
        self._process.join()


def _work(connection: Connection, task: PartitionTask) -> None:
    """Compute the partitions that come through the pipe, until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            partition: Partition = connection.recv()
            connection.send(task.outcome(partition))
