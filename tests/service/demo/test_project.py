"""The project folder of the demo."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

import service.demo.project as project_module
from service.demo.project import Project, write_project
from service.demo.scenario import Learning, Scenario, generated_comments
from service.errors import MisuseError, ServiceError
from service.settings.loading import load
from sfs.registry import FunctionSet


@pytest.fixture
def scenario() -> Scenario:
    """The scenario, with a small table."""
    whole = generated_comments()
    return replace(whole, base=lambda: whole.rows(0, 30))


def test_the_settings_can_be_read(tmp_path: Path, scenario: Scenario) -> None:
    """The settings load, with the demo's clock and existing files."""
    project = write_project(tmp_path / "demo", scenario)
    settings = load(project.config, {})
    assert settings.clock == project.clock
    assert settings.store == project.store
    assert settings.data.read_text().count("\n") >= 30
    assert settings.learner.kind == "slice_aware"
    assert [Path(name) for name in settings.functions] == list(project.functions)


def test_the_slices_have_owners_and_three_are_protected(tmp_path: Path, scenario: Scenario) -> None:
    """All 14 slices have owners; the campaign's slice and two large ones are protected."""
    functions = _functions(write_project(tmp_path / "demo", scenario))
    assert len(functions) == 14
    assert all(each.metadata.owner for each in functions)
    protected = [each.name for each in functions if each.metadata.protected]
    assert protected == ["short_comment", "regex_check_out", "short_link"]


def test_a_slice_needs_its_column(tmp_path: Path, scenario: Scenario) -> None:
    """Without likes there is no slice that reads them."""
    text_only = replace(scenario, learning=Learning({"text": "text"}, "erm", 3, 64, 0, 50))
    project = write_project(tmp_path / "demo", text_only)
    assert "many_likes" not in _functions(project).names
    assert dict(load(project.config, {}).features) == {"text": "text"}


def test_an_earlier_demo_is_replaced(tmp_path: Path, scenario: Scenario) -> None:
    """Files of an earlier demo and its service are removed."""
    project = write_project(tmp_path / "demo", scenario)
    project.store.parent.mkdir()
    for path in (project.store, project.clock, project.log):
        path.write_text("old")
    write_project(tmp_path / "demo", scenario)
    assert not any(path.exists() for path in (project.store, project.clock, project.log))


def test_another_folder_is_left_alone(tmp_path: Path, scenario: Scenario) -> None:
    """A folder with anything else is refused and left unchanged."""
    other = tmp_path / "slicewatch.yaml"
    other.write_text("name: shop\n")
    with pytest.raises(MisuseError, match=r"contains 'slicewatch\.yaml' and is not a demo"):
        write_project(tmp_path, scenario)
    assert [path.name for path in tmp_path.iterdir()] == ["slicewatch.yaml"]
    assert other.read_text() == "name: shop\n"
    with pytest.raises(MisuseError, match="is a file"):
        write_project(other, scenario)


def test_a_long_training_is_reported(tmp_path: Path, scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first training runs, a message says for how long."""
    done, program = tmp_path / "done", tmp_path / "train.py"
    program.write_text(f"import pathlib\nwhile not pathlib.Path({str(done)!r}).exists(): pass\nprint('{{}}')")
    monkeypatch.setattr(project_module, "COMMAND", (sys.executable, str(program)))
    monkeypatch.setattr(project_module, "REPORT_SECONDS", 0.01)
    messages = []

    def report(message: str) -> None:
        messages.append(message)
        done.touch()

    assert write_project(tmp_path / "demo", scenario).train(report) == {}
    assert messages[0] == "  still training, after 0 s"


def test_a_failed_training_has_the_end_of_its_log(
    tmp_path: Path, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of its log is in the error."""
    program = tmp_path / "train.py"
    program.write_text("import sys; sys.exit('no rows')")
    monkeypatch.setattr(project_module, "COMMAND", (sys.executable, str(program)))
    with pytest.raises(ServiceError, match=r"the first training failed.*no rows"):
        write_project(tmp_path / "demo", scenario).train(print)


def _functions(project: Project) -> FunctionSet:
    return FunctionSet.from_files([str(path) for path in project.functions])
