"""The benchmark of the engines: rows, command, comparison, and its section of the page."""

from pathlib import Path

from bench_engines import FILES, is_same, reference, run, write_functions, write_rows
from results import engines_page

from sfs.matrix import SliceMatrix


def test_memberships_are_compared_with_those_of_a_frame(tmp_path: Path) -> None:
    """The command's results are identical to the reference, and any other membership is noticed."""
    rows, files = write_rows(tmp_path / "rows", 400), write_functions(tmp_path)
    expected = reference(rows, files)
    assert expected.unknown.any()
    measured = run(rows, files, tmp_path / "out", "--workers", "1")
    assert (measured["document"]["rows"], measured["document"]["partitions"]["computed"]) == (400, FILES)
    assert measured["mib"] > 0
    assert is_same(tmp_path / "out", expected)
    other = expected.member.copy()
    other[399, 0] ^= True
    assert not is_same(tmp_path / "out", SliceMatrix(expected.names, other, expected.unknown & ~other))
    assert not is_same(tmp_path / "out", SliceMatrix(expected.names, expected.member & False, expected.unknown & False))


def test_the_page_has_each_engine_and_the_large_folder() -> None:
    """Different memberships and too much memory are marked."""
    row = {"engine": "dask", "rows_per_second": 12_345, "start_seconds": 4.5, "mib": 400, "identical": False}
    large = {"rows": 10**7, "seconds": 321, "mib": 1_100, "reach_mib": 1_024, "reached": False}
    measured = {"rows": 2_000_000, "rounds": 3, "functions": 7, "unknown": 730, "results": [row], "large": large}
    page = engines_page(measured)
    assert "| dask | 12,345 | 4.5 s | 400 MiB | **no** |" in page
    assert "(321 s) | 1,100 MiB | <= 1,024 MiB | **no** |" in page
