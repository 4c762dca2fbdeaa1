"""Labelling functions, watched beside the slices."""

import asyncio
from pathlib import Path

VOTES = """

from sfs import labeling_function


@labeling_function()
def votes_always(x):
    return 1
"""
COMMENT = "Customer's comment: (raw)"
CHEAP = {"Price [eur]": 12.5, "country": "no", COMMENT: "late again"}
PLAIN = {"Price [eur]": 99.0, "country": "no", COMMENT: "neither cheap nor short for once"}


def test_no_slice_fired_does_not_ask_labelling_functions(trained: Path, serving) -> None:
    """One that votes on every row leaves the rows of no slice what they are."""
    functions = trained.parent / "slices.py"
    functions.write_text(functions.read_text() + VOTES)

    async def story() -> None:
        async with serving(trained) as running:
            answer = await running.post("/v1/predict", {"instances": [PLAIN, CHEAP]})
            assert answer["predictions"][0]["slices"] == ["votes_always"]
            running.tick()
            view = await running.get("/v1/slices")
            counts = {each["name"]: each["coverage"]["count"] for each in view["slices"]}
            assert (counts["votes_always"], counts["__none__"]) == (2, 1)

    asyncio.run(story())
