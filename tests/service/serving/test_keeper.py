"""Output of the functions, passed on at a bounded rate."""

import os
import select
import threading

import pytest

from service.serving.keeper import OUTPUT_BYTES, relay


def test_output_is_passed_on_up_to_a_limit() -> None:
    """The rest is dropped, and the number of bytes is noted; the writer never waits."""
    (source, writer), (log, target), (until, end) = os.pipe(), os.pipe(), os.pipe()
    passed = bytearray()

    def read() -> None:
        while data := os.read(log, 1 << 16):
            passed.extend(data)

    threads = [threading.Thread(target=relay, args=(source, target), kwargs={"until": until})]
    threads.append(threading.Thread(target=read))
    for thread in threads:
        thread.start()
    os.write(writer, b"first line\n")
    while b"bytes of output dropped" not in passed:
        os.write(writer, 40 * 1024 * b"x")
    os.close(end)
    threads[0].join(300)
    os.close(target)
    threads[1].join(300)
    for descriptor in (source, writer, log, until):
        os.close(descriptor)
    assert passed.startswith(b"first line\n")
    assert len(passed) < OUTPUT_BYTES + 10_000


@pytest.mark.parametrize("full", ["a pipe", "a disk"])
def test_output_that_cannot_be_written_is_dropped(full: str) -> None:
    """The log may be a pipe that is not read, or on a full disk."""
    (source, writer), (until, end) = os.pipe(), os.pipe()
    log, target = (
        os.pipe() if full == "a pipe" else (os.open("/dev/null", os.O_RDONLY), os.open("/dev/full", os.O_WRONLY))
    )
    thread = threading.Thread(target=relay, args=(source, target), kwargs={"until": until})
    thread.start()
    os.set_blocking(writer, False)
    poll = select.poll()
    poll.register(writer, select.POLLOUT)
    for _ in range(100):
        assert poll.poll(300_000)  # it is read
        os.write(writer, select.PIPE_BUF * b"x")
    assert thread.is_alive()
    os.close(end)
    thread.join(300)
    assert not thread.is_alive()
    for descriptor in (source, writer, log, target, until):
        os.close(descriptor)
