"""The network of the benchmark behind LitServe, under an interpreter that has it.

    python peer_litserve.py FOLDER BATCH_ROWS BATCH_SECONDS ADDRESS

The request is one record, and the response its label and probabilities.
"""

import sys
from urllib.parse import urlsplit

import litserve
from peer_network import PeerNetwork


class Comments(litserve.LitAPI):
    """The exported network; one record a call without batches, a list of them with."""

    def __init__(self, folder: str, batch_rows: int, batch_seconds: float) -> None:
        super().__init__(max_batch_size=batch_rows, batch_timeout=batch_seconds)
        self.folder, self.batched = folder, batch_rows > 1

    def setup(self, device: str) -> None:
        """Read the network in the process that uses it."""
        self.network = PeerNetwork(self.folder)

    def decode_request(self, request: dict) -> dict:
        return request

    def batch(self, inputs: list) -> list:
        return inputs

    def predict(self, x: dict | list[dict]) -> list:
        return self.network.predict(x if self.batched else [x])

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: list) -> dict:
        """Return label and probabilities of one record."""
        (p,) = (output,) if self.batched else output
        classes = self.network.classes
        return {"label": classes[p.index(max(p))], "probabilities": dict(zip(classes, p, strict=True))}


def main() -> None:
    """Serve until terminated."""
    folder, batch_rows, batch_seconds, address = sys.argv[1:]
    api = Comments(folder, int(batch_rows), float(batch_seconds))
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    port = urlsplit(address).port
    server.run("127.0.0.1", port, num_api_servers=1, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
