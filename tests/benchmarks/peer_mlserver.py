"""The network of the benchmark as a model of MLServer, which imports it by its name; the fields are V2 tensors."""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput, TensorData
from peer_network import PeerNetwork


class Comments(MLModel):
    """Model whose ``uri`` is the folder of the exported network."""

    async def load(self) -> bool:
        """Read the network."""
        self.network = PeerNetwork(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Return labels and probabilities; without a codec, which takes longer."""
        names = [each.name for each in payload.inputs]
        columns = zip(*(each.data.root for each in payload.inputs), strict=True)
        P = self.network.predict([dict(zip(names, row, strict=True)) for row in columns])
        classes = self.network.classes
        labels = [classes[row.index(max(row))] for row in P]
        flat = [p for row in P for p in row]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                ResponseOutput(name="label", shape=[len(P)], datatype="BYTES", data=TensorData(root=labels)),
                ResponseOutput(
                    name="probabilities", shape=[len(P), len(classes)], datatype="FP64", data=TensorData(root=flat)
                ),
            ],
        )
