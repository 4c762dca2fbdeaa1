"""``slicewatch sfs``."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd


def test_list_shows_metadata_and_fingerprints(cli: Callable, project: Path) -> None:
    """Every function is listed with kind, owner and fingerprint."""
    listed = json.loads(cli("sfs", "list", "--config", project, "--json").out)
    assert [(one["name"], one["kind"], one["owner"]) for one in listed] == [
        ("short_comment", "python", "shop"),
        ("cheap", "template", "shop"),
        ("no_price", "template", ""),
    ]
    assert listed[0]["protected"] is True
    assert listed[0]["target"] == 0.9
    assert all(len(one["fingerprint"]) == 64 for one in listed)


def test_list_prints_a_table(cli: Callable, project: Path) -> None:
    """Without --json the same is a table with short fingerprints."""
    lines = cli("sfs", "list", "--config", project).out.splitlines()
    assert lines[0].split() == ["name", "kind", "owner", "severity", "target", "protected", "fingerprint"]
    assert "90.0 %" in lines[2]


def test_stats_count_the_whole_file(cli: Callable, project: Path, table_file: Path) -> None:
    """Members and coverage equal a count by hand; the interval surrounds the share."""
    price = pd.read_csv(table_file)["Price [eur]"]
    answer = json.loads(cli("sfs", "stats", "--config", project, "--json").out)
    cheap, no_price = answer["slices"][1:]
    assert answer["rows"] == len(price)
    assert (cheap["members"], no_price["members"]) == (int((price < 40).sum()), int(price.isna().sum()))
    assert cheap["coverage"] == cheap["members"] / len(price)
    lower, upper = cheap["coverage_interval"]
    assert lower < cheap["coverage"] < upper
    assert no_price["overlap"] <= 1


def test_stats_of_another_file(cli: Callable, project: Path, tmp_path: Path, table_file: Path) -> None:
    """A file may be named instead of the project's data."""
    pd.read_csv(table_file).head(10).to_parquet(tmp_path / "few.parquet")
    answer = cli("sfs", "stats", tmp_path / "few.parquet", "--config", project, "--json")
    assert json.loads(answer.out)["rows"] == 10


def test_check_passes_a_sound_set(cli: Callable, project: Path) -> None:
    """Sound functions pass every contract check."""
    answer = cli("sfs", "check", "--config", project, "--json")
    assert answer.code == 0
    assert {one["passed"] for one in json.loads(answer.out)} == {True}


def test_check_fails_a_broken_function(cli: Callable, project: Path) -> None:
    """A function that raises on a missing value breaks its contract: code 1."""
    with (project.parent / "slices.py").open("a") as file:
        file.write("\n\n@slicing_function()\ndef careless(x):\n    return len(x['country']) > 100\n")
    answer = cli("sfs", "check", "--config", project)
    assert answer.code == 1
    assert any("careless" in line and "FAILED" in line for line in answer.out.splitlines())


def test_labelling_functions_stand_last(cli: Callable, project: Path) -> None:
    """Labeling functions are listed last, and counted by their votes."""
    with (project.parent / "slices.py").open("a") as file:
        file.write("\n\nfrom sfs import labeling_function\n\n\n@labeling_function(owner='trust')\n")
        file.write("def northern(x):\n    return 0 if x['country'] == 'no' else -1\n")
    listed = json.loads(cli("sfs", "list", "--config", project, "--json").out)
    assert [one["kind"] for one in listed] == ["python", "template", "template", "labeling"]
    assert (listed[-1]["name"], listed[-1]["owner"]) == ("northern", "trust")
    counted = json.loads(cli("sfs", "stats", "--config", project, "--json").out)["slices"][-1]
    country = pd.read_csv(project.parent / "orders.csv")["country"]
    assert counted["members"] == int((country == "no").sum())


def test_labelling_functions_are_no_slices_of_the_model(cli: Callable, project: Path) -> None:
    """Training and apply leave labeling functions out."""
    with (project.parent / "slices.py").open("a") as file:
        file.write("\n\nfrom sfs import labeling_function\n\n\n@labeling_function()\n")
        file.write("def northern(x):\n    return 0 if x['country'] == 'no' else -1\n")
    applied = cli("apply", project.parent / "orders.csv", "--config", project, "--json")
    assert [one["slice"] for one in json.loads(applied.out)["slices"]] == [
        "short_comment",
        "cheap",
        "no_price",
    ]
    trained = json.loads(cli("train", "--config", project, "--json").out)
    assert "northern" not in json.dumps(trained["report"])
