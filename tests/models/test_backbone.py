"""The plain network under every learner."""

import pytest

from models.backbone import MLP
from models.errors import ConfigError


@pytest.mark.parametrize("widths", [(), (0,), (4, -1)])
def test_a_network_without_units_is_refused(widths: tuple[int, ...]) -> None:
    """No layer, or a layer of none, says so."""
    with pytest.raises(ConfigError, match="one layer or more of 1 unit or more"):
        MLP(3, widths)
