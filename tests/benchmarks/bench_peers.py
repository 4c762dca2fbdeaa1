"""Requests per second and latency against MLServer and LitServe, which serve the same network and no monitoring.

    python tests/benchmarks/bench_peers.py --mlserver PYTHON --litserve PYTHON --out FILE.json

Slicewatch is ``slicewatch up`` with 50 functions, log and monitor. The peers compute the same features of the same
record, and run the same network as TorchScript. They have no functions: the memberships that the network reads are
constants of the exported module. First it is checked that all give the same probabilities. The servers take turns
on one core, with wrk on another; then on both cores, which they share with wrk. A server is compared with the best
form of a peer.
"""

from __future__ import annotations

import argparse
import json
import math
import socket
import sys
import tempfile
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from servers import (
    SERVICE,
    Benchmark,
    Call,
    Server,
    at_least,
    at_most,
    measure,
    prediction,
    project,
    ratio,
    records,
    running,
    same,
    turns,
)
from torch import Tensor, nn

from models.batches import Memberships, memberships
from models.bundle.model_bundle import ModelBundle
from models.registry import ModelRegistry
from models.slice_residual import SliceResidualClassifier
from sfs.registry import FunctionSet

HERE = Path(__file__).parent
OURS = "slicewatch"
FORMS = {
    OURS: "`slicewatch up`, all of it",
    "mlserver": "MLServer, V2 inference",
    "mlserver-batches": "MLServer, V2 inference, adaptive batching",
    "litserve": "LitServe",
    "litserve-batches": "LitServe, dynamic batching",
}
BATCH_ROWS, BATCH_SECONDS = 16, 0.002
REACH_RATE, REACH_P99 = 2.0, 0.5
TOLERANCE = 1e-5
"""Largest difference of a probability: batches add in another order."""


class ExportedNetwork(nn.Module):
    """A network from features to probabilities, for rows of given memberships."""

    def __init__(self, model: nn.Module, slices: Memberships | None) -> None:
        super().__init__()
        self.model, self.slices = model, slices

    def forward(self, X: Tensor) -> Tensor:
        """Return float[B, C] of float[B, D]."""
        logits: Tensor = self.model(X) if self.slices is None else self.model(X, self.slices)
        return logits.double().softmax(dim=1)


def export(bundle: ModelBundle, functions: FunctionSet, record: dict[str, Any], folder: Path) -> None:
    """Write the network of a bundle for a peer, with the memberships of a record."""
    model, slices = bundle.model, None
    if isinstance(model, SliceResidualClassifier):
        slices = memberships(bundle.memberships(functions, [record]), model.kept, 1)
    X = bundle.featurizer.transform([record, record]).take(slice(0, 2))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and the fastest that needs no package beside it
        traced = torch.jit.trace(ExportedNetwork(model, slices).eval(), X)
        torch.jit.freeze(traced).save(str(folder / "network.pt"))
    state = bundle.featurizer.to_json()
    dense = sum({"text": 1, "category": 0, "number": 2}[feature["kind"]] for feature in state)
    features = {"features": state, "n_features": X.shape[1], "n_sparse": X.shape[1] - dense}
    exported = {**features, "classes": bundle.classes, "record": record}
    (folder / "features.json").write_text(json.dumps(exported))


def v2(record: dict[str, Any]) -> dict[str, Any]:
    """Return the record as tensors of the V2 protocol, one a field."""
    return {
        "inputs": [
            {"name": name, "shape": [1], "datatype": "BYTES" if isinstance(value, str) else "FP64", "data": [value]}
            for name, value in record.items()
        ]
    }


def probabilities(answer: dict[str, Any]) -> list[float]:
    """Return the probabilities in an answer of any of the servers."""
    if "outputs" in answer:
        return next(output["data"] for output in answer["outputs"] if output["name"] == "probabilities")
    (row,) = answer.get("predictions", [answer])
    return list(row["probabilities"].values())


def close(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two answers have the same probabilities."""
    pairs = zip(probabilities(one), probabilities(other), strict=True)
    return all(math.isclose(p, q, abs_tol=TOLERANCE) for p, q in pairs)


def mlserver_folder(folder: Path, form: str) -> Path:
    """Write the settings of MLServer for one form, the fastest that it has for one process; return their folder."""
    place = folder / form
    place.mkdir(exist_ok=True)
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "http_port": free_port(),
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "gzip_enabled": False,
    }
    model = {"name": "comments", "implementation": "peer_mlserver.Comments", "parameters": {"uri": str(folder)}}
    if form.endswith("batches"):
        model |= {"max_batch_size": BATCH_ROWS, "max_batch_time": BATCH_SECONDS}
    (place / "settings.json").write_text(json.dumps(settings))
    (place / "model-settings.json").write_text(json.dumps(model))
    return place


def free_port() -> int:
    """Return a port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def start(form: str, options: argparse.Namespace, settings: Path) -> tuple[list[str], Call]:
    """Return the command of a form of a server, and what it is asked."""
    (record,), folder = records(), settings.parent
    if form.startswith("mlserver"):
        command = [str(options.mlserver.with_name("mlserver")), "start", str(mlserver_folder(folder, form))]
        return command, Call("/v2/models/comments/infer", v2(record))
    if form.startswith("litserve"):
        rows, seconds = (BATCH_ROWS, BATCH_SECONDS) if form.endswith("batches") else (1, 0)
        script, address = str(HERE / "peer_litserve.py"), f"http://127.0.0.1:{free_port()}"
        return [str(options.litserve), script, str(folder), str(rows), str(seconds), address], Call("/predict", record)
    return [*SERVICE, str(settings)], prediction()


def compare(options: argparse.Namespace, settings: Path, cores: list[int]) -> dict[str, Server]:
    """Measure the forms in turn on the given cores."""
    env = {"PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
    with ExitStack() as stack:
        servers, calls = {}, {}
        for form in FORMS:
            command, calls[form] = start(form, options, settings)
            servers[form] = stack.enter_context(running(form, command, calls[form], cores, env))
        same({form: calls[form].answer(server.url) for form, server in servers.items()}, close)
        for server in servers.values():
            server.stand_still()
        for _ in turns(options.rounds):
            for form, server in servers.items():
                measure(server, calls[form], options.client_core, options.seconds)
    return servers


def targets(servers: dict[str, Server]) -> list[dict[str, Any]]:
    """Return the comparisons on one core with each peer, in the form that is the best in each turn."""
    ours, rows = servers[OURS], []
    for peer in ("MLServer", "LitServe"):
        forms = [server for form, server in servers.items() if form.startswith(peer.lower())]
        rate = [max(rates) for rates in zip(*(each.rates for each in forms), strict=True)]
        p99 = [min(times) for times in zip(*(each.p99_ms for each in forms), strict=True)]
        rows.append(at_least(f"requests/s against {peer}", ratio(ours.rates, rate), REACH_RATE))
        rows.append(at_most(f"p99 against {peer}", ratio(ours.p99_ms, p99), REACH_P99))
    return rows


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    benchmark = Benchmark(__doc__)
    benchmark.parser.add_argument("--mlserver", type=Path, required=True, help="an interpreter that has MLServer")
    benchmark.parser.add_argument("--litserve", type=Path, required=True, help="an interpreter that has LitServe")
    options = benchmark.options()
    with tempfile.TemporaryDirectory() as name:
        settings = project(Path(name), options.training_rows)
        bundle = ModelRegistry(settings.parent / ".slicewatch/registry", name="comments").get()
        export(bundle, FunctionSet.from_file(settings.with_name("slices.yaml")), *records(), settings.parent)
        one_core = compare(options, settings, [options.server_core])
        both = compare(options, settings, [options.server_core, options.client_core])
    results = [
        {"name": form, "what": FORMS[form], "cores": cores, **server.figures()}
        for cores, servers in ((1, one_core), (2, both))
        for form, server in servers.items()
    ]
    for row in results:
        print(f"{row['requests_per_second']:>7,} /s  p99 {row['p99_ms']:>7.2f} ms  {row['cores']} cores  {row['what']}")
    return benchmark.finish(options, results, targets(one_core), batch_rows=BATCH_ROWS)


if __name__ == "__main__":
    sys.exit(main())
