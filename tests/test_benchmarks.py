"""Benchmarks of the service: the scripts run, and their checks can fail."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from bench_drift_slide import CELLS
from bench_drift_slide import results as slide_results
from bench_load import Level, Punctual, difference
from bench_load import targets as load_targets
from bench_peers import close, export
from bench_peers import targets as peer_targets
from bench_rows import targets as row_targets
from bench_serving import targets as ladder_targets
from bench_start import Service, command_seconds
from drift_streams import DAY_BLOCKS
from open_loop import Outcome, offer, poisson
from peer_network import PeerNetwork
from servers import Server, family, project, records, same

from models.registry import ModelRegistry
from sfs.registry import FunctionSet

BENCHMARKS = Path(__file__).parent / "benchmarks"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def server(rate: float, cpu_us: float = 100, p99_ms: float = 1) -> Server:
    """Return a server that was measured in one turn, and has no process."""
    return Server("", "", None, [rate], [cpu_us], [p99_ms], [p99_ms])  # type: ignore[arg-type]


def reached(rows: list[dict]) -> list[bool]:
    return [row["reached"] for row in rows]


def outcome(delay: float = 0.0, latency: float = 0.001, status: int = 200, n: int = 100) -> Outcome:
    """Return n requests, all sent with a delay and answered after a latency."""
    scheduled = np.arange(n) / n
    sent = scheduled + delay
    return Outcome(scheduled, sent, sent + latency, np.full(n, status))


def test_a_quick_run_writes_its_figures(tmp_path: Path) -> None:
    """It ends with 0 or 1, and its JSON has results and targets; other benchmarks of servers are built alike."""
    out = tmp_path / "out.json"
    command = [sys.executable, str(BENCHMARKS / "bench_load.py"), "--quick", "--out", str(out)]
    environ = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert out.exists(), done.stderr
    document = json.loads(out.read_text())
    assert document["results"]
    assert done.returncode == int(not all(reached(document["targets"])))


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_the_exported_network_gives_the_probabilities_of_the_bundle(tmp_path: Path) -> None:
    """A peer computes features and probabilities with PyTorch alone, as the bundle does."""
    settings = project(tmp_path, rows=400)
    bundle = ModelRegistry(tmp_path / ".slicewatch/registry", name="comments").get()
    functions = FunctionSet.from_file(settings.with_name("slices.yaml"))
    for record in records(5):
        export(bundle, functions, record, tmp_path)
        (right,) = bundle.predict_proba([record], bundle.memberships(functions, [record])).tolist()
        assert PeerNetwork(tmp_path).predict([record, record]) == [pytest.approx(right, abs=1e-5)] * 2


def test_a_start_that_fails_ends_the_benchmark(tmp_path: Path) -> None:
    """With the log of the service; so does a command with another exit code than expected."""
    settings = tmp_path / "slicewatch.yaml"
    settings.write_text("serve: {port: -1}\n")
    with pytest.raises(SystemExit, match=r"(?s)exit code 2: .*serve.port"):
        Service(settings, tmp_path / "up.log")
    with pytest.raises(SystemExit, match=r"(?s)`slicewatch sfs list`: exit code 2: .*serve.port"):
        command_seconds("sfs list", settings)


def test_servers_that_answer_differently_stop_the_benchmark() -> None:
    """A peer with other probabilities is not compared, whatever the form of its answer."""
    ours = {"predictions": [{"probabilities": {"ham": 0.75, "spam": 0.25}}]}
    equal = {"outputs": [{"name": "probabilities", "data": [0.75, 0.25]}]}
    other = {"label": "ham", "probabilities": {"ham": 0.7, "spam": 0.3}}
    same({"ours": ours, "equal": equal}, close)
    with pytest.raises(SystemExit, match="differently"):
        same({"ours": ours, "equal": equal, "other": other}, close)


def test_the_ladder_misses_each_target() -> None:
    """The whole against the endpoint and the ASGI application, and what functions and log add."""
    rungs = {"asgi": server(20_000), "endpoint": server(8_000), "model": server(6_000, 150)}
    assert reached(ladder_targets({**rungs, "up": server(5_000, 290)})) == [True, True, True]
    assert reached(ladder_targets({**rungs, "up": server(4_500, 310)})) == [False, True, False]
    assert reached(ladder_targets({**rungs, "up": server(3_900, 290)})) == [False, False, True]


def test_the_batches_miss_each_target() -> None:
    """Rows of a request count, and Python functions against the endpoint."""
    fast = {"endpoint": server(8_000), "python": server(3_300), "batch": server(500), "logged": server(210)}
    slow = {"endpoint": server(8_000), "python": server(3_100), "batch": server(400), "logged": server(190)}
    assert reached(row_targets(fast)) == [True, True, True]
    assert reached(row_targets(slow)) == [False, False, False]


def test_a_peer_is_compared_in_its_best_form() -> None:
    """Rate and p99 are those of the better form of each peer."""
    peers = {"mlserver": server(1_000, p99_ms=9), "mlserver-batches": server(1_600, p99_ms=20)}
    peers |= {"litserve": server(900, p99_ms=30), "litserve-batches": server(800, p99_ms=30)}
    ours = {"slicewatch": server(3_000, p99_ms=5)}
    assert reached(peer_targets(ours | peers)) == [False, False, True, True]


def levels(p99_ms: float, refused_ms: float, share: float) -> list[Level]:
    """Return one turn at each load, with a capacity of 100 a second."""
    half, most, twice = Level(0.5), Level(0.7), Level(2.0)
    half.add(outcome(latency=p99_ms / 1e3), 100, 1)
    most.add(outcome(latency=p99_ms / 1e3), 100, 1)
    status = np.where(np.arange(200) < 100 * share, 200, 429)
    scheduled = np.zeros(200)
    twice.add(Outcome(scheduled, scheduled, np.where(status == 200, 0.5, refused_ms / 1e3), status), 100, 1)
    return [half, most, twice]


def test_the_loads_miss_each_target() -> None:
    """Latency below the capacity, goodput and refusals above it, and the log."""
    assert all(reached(load_targets(levels(4, 4, 0.9), {"lost": 0, "refused_in_log": 0})))
    missed = load_targets(levels(26, 6, 0.7), {"lost": 1, "refused_in_log": 1})
    assert reached(missed) == [False, False, False, False, True, False, False]


@pytest.mark.parametrize("status", [429, 0])
def test_a_refusal_below_the_capacity_misses_the_latency(status: int) -> None:
    """A request that is refused, or not answered, takes for ever."""
    level = Level(0.5)
    level.add(outcome(status=status), 100, 1)
    assert level.p99_ms == [float("inf")]


def test_lost_and_refused_ids_are_found() -> None:
    """An acknowledged id that is not in the log is lost; a refused one may not be there."""
    assert difference(["a", "b"], ["c", "d"], {"a", "d", "e"}) == {"lost": 1, "refused_in_log": 1}


def test_a_run_with_a_late_client_is_discarded() -> None:
    """A late run is repeated; where all are late there is no result."""
    punctual = Punctual(tries=2)
    assert punctual.run(lambda number: outcome(delay=0.002 * (1 - number))).late_share == 0
    assert punctual.discarded == 1
    with pytest.raises(SystemExit, match="too busy"):
        punctual.run(lambda _: outcome(delay=0.002))


def test_a_latency_runs_from_the_scheduled_time() -> None:
    """Waiting before the request is sent is part of the latency."""
    assert outcome(delay=0.5, latency=0.25).latency_ms(0.99) == pytest.approx(750)


def test_arrivals_are_random_at_the_given_rate() -> None:
    """The number of arrivals is within five standard deviations, and the gaps vary as those of a Poisson process."""
    times = poisson(1_000, 10, 0)
    assert abs(len(times) - 10_000) < 500
    assert np.diff(times).std() == pytest.approx(1e-3, rel=0.1)


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """Yield the address of a server that closes each connection after its second request, without an answer."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            if connection.recv(1000):
                connection.sendall(ANSWER[:20])
                connection.sendall(ANSWER[20:])
                connection.recv(1000)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def test_a_closed_connection_is_replaced(address: tuple[str, int]) -> None:
    """A request whose connection is closed has no answer; the next one is sent on another connection."""
    done = offer(address, lambda number: b"GET / HTTP/1.1\r\n\r\n", np.zeros(4), connections=1, seconds=60)
    assert done.status.tolist() == [200, 0, 200, 0]
    assert np.isfinite(done.answered).tolist() == [True, False, True, False]


def test_a_request_that_is_never_sent_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """While every connection waits for an answer nothing can be sent, and the run does not count."""
    monkeypatch.setattr("open_loop.PATIENCE_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = offer(silent.getsockname(), lambda number: b"GET / HTTP/1.1\r\n\r\n", np.zeros(4), 1, seconds=0.01)
    assert np.isfinite(done.sent).tolist() == [True, False, False, False]
    assert done.late_share >= 0.75
    level = Level(0.5)
    level.add(done, 100, 1)
    assert level.other == 1


def test_processor_time_and_memory_are_those_of_all_descendants() -> None:
    """A child of a child counts, as the processes of the functions are."""
    with subprocess.Popen(["sh", "-c", "sh -c 'sleep 60; :'; :"]) as process:
        while len(found := family(process.pid)) < 3:
            assert process.poll() is None
        for pid in found:
            os.kill(pid, signal.SIGKILL)


def test_a_slide_is_found_early_or_not_at_all() -> None:
    """Ten days are 10 %; one stream without an alarm, or one after the new level was accepted, misses the aim."""
    found = 38 * DAY_BLOCKS
    first = [[found, found], [None, found], [None, None], *[[found, 58 * DAY_BLOCKS]] * (len(CELLS) - 3)]
    early, one, none, late, *_ = slide_results({"first": first, "late": [{"slice": 0}]}, 2)
    assert (early["mean_days"], early["missed"], early["alarms_after"], early["reached"]) == (10, 0, 1, False)
    assert (one["missed"], one["reached"]) == (1, False)
    assert (none["missed"], none["most_moved"], none["reached"]) == (2, None, False)
    assert late["most_moved"] == pytest.approx(1.01**30 - 1)
    assert not late["reached"]
    assert all(row["reached"] for row in slide_results({"first": [[found]] * len(CELLS), "late": []}, 1))
