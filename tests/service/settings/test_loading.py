"""Loading of settings: values, overrides, and the line in every error."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.settings import LEARNERS, variable
from service.settings.loading import load, overrides, with_options
from service.settings.schema import SETTINGS, DriftSettings, LearnerSettings, TemplateLimitSettings, TlsFiles
from sfs.schema import Column, Schema

GOOD = "data: a.csv\nlabel: y\nfeatures: {text: text}\n"


def write(folder: Path, text: str) -> Path:
    file = folder / "slicewatch.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def problems(folder: Path, text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(write(folder, text), environ)
    return caught.value.problems


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    """Paths of data, registry and functions are resolved against the folder of the settings file."""
    settings = load(write(tmp_path, GOOD + "functions: [slices.py, sfs.library.spam]\n"), {})
    assert settings.data == tmp_path / "a.csv"
    assert settings.registry == tmp_path / ".slicewatch/registry"
    assert settings.functions == (str(tmp_path / "slices.py"), "sfs.library.spam")


def test_an_absolute_path_stays(tmp_path: Path) -> None:
    """An absolute data path is kept."""
    assert load(write(tmp_path, GOOD.replace("a.csv", "/elsewhere/a.csv")), {}).data == Path("/elsewhere/a.csv")


def test_left_out_settings_have_defaults(tmp_path: Path) -> None:
    """Only data, label and features are required."""
    settings = load(write(tmp_path, GOOD), {})
    assert (settings.name, settings.format, settings.functions) == ("model", "table", ())
    assert settings.learner == LearnerSettings()


def test_every_learner_setting_is_read(tmp_path: Path) -> None:
    """Each key of the learner section arrives in its field."""
    keys = "{kind: erm, epochs: 3, hidden: [8, 4], learning_rate: 0.1, batch_rows: 16, search_rows: 9, seed: 7}"
    learner = load(write(tmp_path, f"{GOOD}learner: {keys}\n"), {}).learner
    assert learner == LearnerSettings("erm", 3, (8, 4), 0.1, 16, 9, 7)


def test_words_that_yaml_takes_for_booleans_are_names(tmp_path: Path) -> None:
    """A column called no, y or 2024 keeps its name."""
    settings = load(write(tmp_path, "data: a.csv\nlabel: y\nfeatures: {no: category, 2024: number}\n"), {})
    assert settings.features == {"no": "category", "2024": "number"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lable: y", "line 4: unknown setting 'lable'; did you mean 'label'?"),
        ("learner: {epoch: 3}", "line 4: unknown setting 'learner.epoch'; did you mean 'learner.epochs'?"),
        (
            "learner:\n  kind: erm\n  epochs: many",
            "line 6: 'learner.epochs': expected an integer, at least 1",
        ),
        (
            "learner: {hidden: [8, 0]}",
            "line 4: 'learner.hidden': expected an integer, at least 1 and at most 10000, got '0'",
        ),
        ("learner: {hidden: [99999999]}", "at most 10000, got '99999999'"),
        (
            "retrain: {wait_days: 1e300}",
            "'retrain.wait_days': expected a number above 0 and at most 100,000, got '1e300'",
        ),
        ("serve: {hosts: ['*shop.example']}", "'serve.hosts': expected a host name, or '*.' and a domain, got '*shop"),
        (
            "learner: {learning_rate: -1}",
            "line 4: 'learner.learning_rate': expected a number above 0 and at most 100,000, got '-1'",
        ),
        ("learner: {kind: slice_residul}", "did you mean 'slice_residual'?"),
        ("learner: {hidden: []}", "line 4: 'learner.hidden': expected a list of at least 1, got 0"),
        ("learner: 3", "line 4: 'learner': expected `key: value` lines, got '3'"),
        (
            "format: excel",
            "line 4: 'format': 'excel' is not one of table, csv, tsv, parquet, jsonl, youtube, sms",
        ),
        ("name: [a]", "line 4: 'name': expected text, got a list"),
        ("registry:", "line 4: 'registry': expected text, got nothing"),
        ("name: a\nname: b", "line 5: duplicate key 'name'"),
        ("functions: [a.py", "line 5: not YAML"),
        ("serve: [1]", "line 4: 'serve': expected `key: value` lines, got a list"),
        ("file: x", "line 4: unknown setting 'file'"),
        ("classes: [a]", "line 4: 'classes': expected a list of at least 2, got 1"),
        ("functions: &a [*a]", "an alias refers to itself"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    """The message has the line, the value, and the expected type."""
    (problem,) = problems(tmp_path, f"{GOOD}{line}\n")
    assert message in problem


def test_every_problem_is_listed(tmp_path: Path) -> None:
    """Two unknown settings, a wrong kind and an absent key make four problems."""
    text = "dat: a.csv\nlabel: y\nfeatures: {text: txt}\ncolour: red\n"
    found = problems(tmp_path, text)
    assert [problem.split(": ", 1)[1][:25] for problem in found] == [
        "unknown setting 'dat'; di",
        "'features': 'txt' is not ",
        "unknown setting 'colour'",
        "'data' is missing: traini",
    ]


def test_features_may_not_be_empty(tmp_path: Path) -> None:
    """A model reads at least one column."""
    assert "name at least one column" in problems(tmp_path, GOOD.replace("{text: text}", "{}"))[0]


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_is_refused(tmp_path: Path, text: str) -> None:
    """A file without settings is reported as empty."""
    assert "is empty" in problems(tmp_path, text)[0]


def test_an_absent_file_says_what_to_do(tmp_path: Path) -> None:
    """The message for a missing file suggests init and --config."""
    with pytest.raises(SettingsError, match="slicewatch init"):
        load(tmp_path / "slicewatch.yaml", {})


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are an error of the file, not a crash."""
    (tmp_path / "slicewatch.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="cannot be read"):
        load(tmp_path / "slicewatch.yaml", {})


def test_variables_override_the_file(tmp_path: Path) -> None:
    """A variable overrides the file, and may be a list or a mapping in YAML."""
    environ = {
        "SLICEWATCH_LABEL": "class",
        "SLICEWATCH_LEARNER_EPOCHS": "5",
        "SLICEWATCH_FEATURES": "{likes: number}",
        "SLICEWATCH_TEST_DATA": "not a setting",
    }
    settings = load(write(tmp_path, GOOD), environ)
    assert (settings.label, settings.learner.epochs, settings.features) == ("class", 5, {"likes": "number"})
    assert "SLICEWATCH_TEST_DATA" not in overrides(environ)


def test_a_wrong_variable_is_named(tmp_path: Path) -> None:
    """The message names the variable instead of a line."""
    (problem,) = problems(tmp_path, GOOD, SLICEWATCH_LEARNER_SEED="x")
    assert problem == "variable SLICEWATCH_LEARNER_SEED: 'learner.seed': expected an integer, at least 0, got 'x'"


def test_a_variable_replaces_a_wrong_value(tmp_path: Path) -> None:
    """Only the value in force is validated."""
    settings = load(write(tmp_path, GOOD + "learner: {epochs: many}\n"), {"SLICEWATCH_LEARNER_EPOCHS": "5"})
    assert settings.learner.epochs == 5


def test_a_setting_may_be_written_with_its_section(tmp_path: Path) -> None:
    """The key ``learner.epochs`` at the top sets ``epochs`` under ``learner``, and is validated like it."""
    assert load(write(tmp_path, GOOD + "learner.epochs: 3\n"), {}).learner.epochs == 3
    both = load(write(tmp_path, GOOD + "learner.epochs: 3\nlearner: {seed: 7}\n"), {}).learner
    assert (both.epochs, both.seed) == (3, 7)
    (problem,) = problems(tmp_path, GOOD + "learner.epochs: x\n")
    assert problem.endswith("line 4: 'learner.epochs': expected an integer, at least 1, got 'x'")
    (problem,) = problems(tmp_path, GOOD + "learner.epoch: 3\n")
    assert problem.endswith("line 4: unknown setting 'learner.epoch'; did you mean 'learner.epochs'?")


def test_values_given_in_code_are_validated() -> None:
    """A section made or changed in code has the same limits as the file."""
    with pytest.raises(ValueError, match="expected an integer, at least 1, got 0"):
        replace(LearnerSettings(epochs=3), epochs=0)


def test_a_variable_supplies_what_the_file_lacks(tmp_path: Path) -> None:
    """A required setting may come from a variable alone."""
    settings = load(write(tmp_path, GOOD.replace("label: y\n", "")), {"SLICEWATCH_LABEL": "y"})
    assert settings.label == "y"


def test_every_setting_has_its_own_variable() -> None:
    """No two settings share a variable, and every setting has a description."""
    assert len({variable(key) for key in SETTINGS}) == len(SETTINGS)
    assert all(SETTINGS.values())


def test_the_sections_of_the_service_are_read(tmp_path: Path) -> None:
    """Keys of serve, log, monitor and function_limits arrive in their fields, the others keep defaults."""
    text = (
        "serve: {host: 10.0.0.5, port: 0, insecure: true, request_seconds: 2.5}\n"
        "log: {features: [text, likes], survives: power}\n"
        "monitor: {tick_seconds: 1, minimum_labels: 5, positive: spam}\n"
        "function_limits: {hold_ms: 80}\nclasses: [ham, spam]\nstore: live.db\n"
    )
    settings = load(write(tmp_path, GOOD + text), {"SLICEWATCH_SERVE_PORT": "9000"})
    serve = settings.serve
    assert (serve.host, serve.port, serve.insecure, serve.request_seconds) == ("10.0.0.5", 9000, True, 2.5)
    assert (serve.queue_rows, settings.function_limits.hold_ms, settings.function_limits.faults) == (
        2048,
        80,
        None,
    )
    assert (settings.log.features, settings.log.survives) == (("text", "likes"), "power")
    monitor = settings.monitor
    assert (monitor.tick_seconds, monitor.minimum_labels, monitor.positive) == (1, 5, "spam")
    assert (settings.classes, settings.store) == (("ham", "spam"), tmp_path / "live.db")


def test_a_port_is_a_port(tmp_path: Path) -> None:
    """A number above 65535 is refused with the limit."""
    (problem,) = problems(tmp_path, GOOD + "serve: {port: 70000}\n")
    assert "line 4" in problem
    assert "at most 65535, got '70000'" in problem


def test_insecure_is_true_or_false(tmp_path: Path) -> None:
    """A value other than true and false is refused."""
    (problem,) = problems(tmp_path, GOOD + "serve: {insecure: perhaps}\n")
    assert "expected true or false, got 'perhaps'" in problem


def test_types_of_columns_are_read(tmp_path: Path) -> None:
    """A type, or a mapping with its options; names that YAML takes for something else are names."""
    settings = load(
        write(
            tmp_path,
            GOOD
            + "schema:\n  no: boolean\n  2024: integer\n  a.b: text\n  zip: {type: category, width: 5, missing: NA}\n"
            "  ok: {type: boolean, truth: [Y, N]}\n  at: {type: timestamp, zone: Europe/Berlin}\n",
        ),
        {},
    )
    assert settings.table_schema == Schema(
        [
            Column("no", "boolean"),
            Column("2024", "integer"),
            Column("a.b", "text"),
            Column("zip", "category", width=5, missing=("NA",)),
            Column("ok", "boolean", truth=("Y", "N")),
            Column("at", "timestamp", zone="Europe/Berlin"),
        ]
    )
    assert load(write(tmp_path, GOOD), {}).table_schema == Schema()
    assert load(write(tmp_path, GOOD + "schema:\n"), {}).table_schema == Schema()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("zip: code", r"line 5: 'schema.zip': type: Input should be 'boolean', .* got 'code'"),
        (
            "zip: {type: category, width: 0}",
            r"line 5: 'schema.zip': width: .*greater than or equal to 1, got '0'",
        ),
        ("zip: {kind: category}", r"line 5: 'schema.zip': "),
        ("zip: {type: timestamp, zone: Mars}", r"line 5: 'schema.zip': .*unknown time zone 'Mars'"),
        ("zip: [category]", r"line 5: 'schema.zip': type: .* got \['category'\]"),
        ("zip: {type: number, decimal: ',', thousands: ','}", r"line 5: 'schema.zip': .*must differ"),
    ],
)
def test_a_wrong_type_of_a_column_is_named_with_its_line(tmp_path: Path, entry: str, message: str) -> None:
    """The line of the column, the option and the value."""
    (problem,) = problems(tmp_path, f"{GOOD}schema:\n  {entry}\n")
    assert re.search(message, problem)


def test_only_given_values_replace_defaults():
    """A section holds None for every key that was not set."""
    assert LearnerSettings(epochs=3).given == {"kind": LEARNERS[0], "epochs": 3, "seed": 0}
    assert TemplateLimitSettings().given == {}


def test_files_of_tls_are_relative_to_the_settings(tmp_path: Path) -> None:
    """As all paths in the file; a variable takes the same form."""
    settings = load(write(tmp_path, GOOD + "serve: {tls: {cert: a.pem, key: /b.key}}\n"), {})
    assert settings.serve.tls == TlsFiles(tmp_path / "a.pem", Path("/b.key"))
    by_variable = load(write(tmp_path, GOOD), {"SLICEWATCH_SERVE_TLS": "{cert: a.pem, key: b.key}"})
    assert by_variable.serve.tls == TlsFiles(tmp_path / "a.pem", tmp_path / "b.key")
    assert load(write(tmp_path, GOOD), {}).serve.tls is None


@pytest.mark.parametrize(
    ("tls", "got"),
    [
        ("{cert: a.pem}", "the keys cert"),
        ("a.pem", "'a.pem'"),
        ("", "nothing"),
        ("{a: b, key: b}", "the keys a, key"),
    ],
)
def test_tls_takes_both_files(tmp_path: Path, tls: str, got: str) -> None:
    """The error has the form, and the value."""
    (problem,) = problems(tmp_path, f"{GOOD}serve:\n  tls: {tls}\n")
    assert re.search(r"line 5: 'serve.tls': expected the files \{cert: FILE, key: FILE\}, got " + got, problem)


def test_options_replace_single_settings() -> None:
    """Options are validated as the file is, and every other setting stays."""
    drift = DriftSettings(max_slices=7)
    changed = with_options(drift, ["drift.tolerance=0.2", "drift.time_zone=UTC"])
    assert changed == replace(drift, tolerance=0.2)
    with pytest.raises(SettingsError) as error:
        with_options(drift, ["drift.tolerance=2", "drift.max_slice=1", "retrain.margin=0.1", "drift.max_slices="])
    wrong = "\n".join(error.value.problems)
    assert "--set drift.tolerance: expected a number above 0 and below 1, got '2'" in wrong
    assert "--set drift.max_slice=1: expected a setting of drift, as drift.tolerance=0.2; did you mean" in wrong
    assert "--set retrain.margin=0.1: expected a setting of drift" in wrong
    assert "--set drift.max_slices: expected an integer" in wrong
