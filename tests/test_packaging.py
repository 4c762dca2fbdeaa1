"""The wheel holds three packages, and nobody else owns their names."""

import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

PACKAGES = {"service", "sfs", "models"}


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from the checkout."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(root)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_exactly_three_packages(wheel: zipfile.ZipFile) -> None:
    """Its top level is service, sfs, models and the metadata."""
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == PACKAGES


def test_every_source_file_is_in_the_wheel(wheel: zipfile.ZipFile, root: Path) -> None:
    """No ignore rule drops a module, and each package says that it is typed."""
    names = set(wheel.namelist())
    expected = {str(path.relative_to(root)) for package in PACKAGES for path in (root / package).rglob("*.py")}
    assert expected - names == set()
    assert {f"{package}/py.typed" for package in PACKAGES} - names == set()


def test_the_wheel_refuses_a_public_index(wheel: zipfile.ZipFile) -> None:
    """Its names are generic, so its metadata say that it is private."""
    text = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    assert "Classifier: Private :: Do Not Upload" in text


def test_no_other_distribution_owns_our_names() -> None:
    """Of the installed distributions only ours may provide service, sfs or models."""
    owners = metadata.packages_distributions()
    assert {owner for package in PACKAGES for owner in owners.get(package, [])} <= {"slicewatch"}


def test_the_source_distribution_has_scripts_and_links(root: Path, tmp_path: Path) -> None:
    """``make`` works in an unpacked source distribution, and the Helm chart has its rules and dashboards."""
    command = [
        sys.executable,
        "-m",
        "build",
        "--sdist",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(root),
    ]
    subprocess.run(command, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    scripts = set(re.findall(r"\bsh ([\w./-]+)", (root / "Makefile").read_text()))
    assert scripts == {".ci/check-python", "tests/system-packages"}
    assert scripts | {"CONTRIBUTING.md", "Makefile", "constraints.txt"} <= names
    chart = root / "deploy" / "helm" / "slicewatch"
    links = {str(path.relative_to(root)) for path in (chart / "files").rglob("*.*")}
    assert len(links) >= 3
    assert links <= names
