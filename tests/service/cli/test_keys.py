"""``slicewatch keys``: secrets on stdout alone, tables, and errors that name the remedy."""

import json

import pytest


def test_the_secret_alone_is_on_stdout(cli, project):
    """Once; the list has no secret and no hash."""
    made = cli("keys", "add", "shop", "--scope", "predict,labels", "--expires", "90d", "--config", project)
    assert (made.code, made.out[:3], len(made.out)) == (0, "sw_", 56)
    assert "shown only now" in made.err
    secret = made.out.strip()
    assert secret[12:] not in made.err
    for option in ((), ("--json",)):
        listed = cli("keys", "list", "--config", project, *option)
        assert "shop" in listed.out
        assert secret[12:] not in listed.out
        assert "sha256" not in listed.out


def test_the_file_is_beside_the_store(cli, project):
    """Or where ``serve.keys`` says."""
    cli("keys", "add", "shop", "--scope", "read", "--config", project)
    assert (project.parent / ".slicewatch/keys.json").stat().st_mode & 0o777 == 0o600
    elsewhere = project.parent / "mounted.json"
    cli("keys", "add", "ci", "--scope", "read", "--config", project, SLICEWATCH_SERVE_KEYS=str(elsewhere))
    cli("keys", "add", "ci", "--scope", "read", "--config", project, SLICEWATCH_SERVE_KEYS="relative.json")
    assert elsewhere.exists()
    assert (project.parent / "relative.json").exists()


def test_keys_are_documents_too(cli, project):
    """``--json`` of every action."""
    add = ("keys", "add", "shop", "--scope", "labels, predict", "--rate", "5", "--model", "orders", "--json")
    made = json.loads(cli(*add, "--config", project).out)
    assert (made["name"], made["scopes"], made["rate"], made["model"]) == ("shop", ["predict", "labels"], 5, "orders")
    assert made["key"].startswith(f"sw_{made['id']}_")
    turned = json.loads(cli("keys", "rotate", "shop", "--overlap", "0s", "--json", "--config", project).out)
    assert turned["key"] != made["key"]
    listed = json.loads(cli("keys", "list", "--json", "--config", project).out)["keys"]
    assert [each["state"] for each in listed] == ["expired", "active"]
    revoked = json.loads(cli("keys", "revoke", "shop", "--json", "--config", project).out)
    assert revoked == {"name": "shop", "revoked": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scope", "reed"], "unknown scope 'reed'; did you mean 'read'?"),
        (["--scope", ""], "the scopes are predict, labels, read, write, admin, metrics"),
        (["--scope", "read", "--expires", "2020-01-01"], "which is past"),
        (["--scope", "read", "--expires", "0d"], "which is past"),
        (["--scope", "read", "--expires", "soon"], "expected 90d, 12h, or a date such as 2027-01-31"),
        (["--scope", "read", "--rate", "0"], "requests per second above 0, got '0'"),
        (["--scope", "read", "--rate", "inf"], "requests per second above 0, got 'inf'"),
        (["--scope", "read", "--model", "other"], "this project's model is 'orders'"),
        ([], "the following arguments are required: --scope"),
    ],
)
def test_a_mistake_is_named(cli, project, options, said):
    """With exit code 2, and without a key."""
    answer = cli("keys", "add", "shop", *options, "--config", project)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert not (project.parent / ".slicewatch/keys.json").exists()


@pytest.mark.parametrize("name", ["a b", "", "../x", "-x", "x" * 65, "monitor"])
def test_a_name_is_plain(cli, project, name):
    """As the name of a model, and none that stands for the service."""
    assert cli("keys", "add", "--scope", "read", "--config", project, "--", name).code == 2


def test_a_taken_or_unknown_name_is_misuse(cli, project):
    """The error names the command that helps, or the names that there are."""
    cli("keys", "add", "shop", "--scope", "read", "--config", project)
    taken = cli("keys", "add", "shop", "--scope", "read", "--config", project)
    assert (taken.code, "slicewatch keys rotate shop" in taken.err) == (2, True)
    unknown = cli("keys", "revoke", "ci", "--config", project)
    assert (unknown.code, "active are: shop" in unknown.err) == (2, True)


def test_no_keys_are_no_table(cli, project):
    """A sentence says what that means."""
    assert "open to this machine" in cli("keys", "list", "--config", project).out


def test_a_commands_key_is_read_from_the_file_or_the_variable(cli, project, tmp_path):
    """A key that is none is misuse before anything is sent."""
    (tmp_path / "key").write_text("sw_ä\n")
    for options, variables in ((("--key-file", tmp_path / "key"), {}), ((), {"SLICEWATCH_KEY": "a\nb"})):
        answer = cli("retrain", "list", "--url", "http://127.0.0.1:9", *options, **variables)
        assert (answer.code, "has no key" in answer.err) == (2, True)


def test_the_doctor_reads_the_keys(cli, project):
    """Their number, or the damage of their file."""
    cli("keys", "add", "shop", "--scope", "read", "--config", project)

    def finding():
        found = json.loads(cli("doctor", "--json", "--config", project).out)["findings"]
        return next((each["state"], each["detail"]) for each in found if each["what"] == "keys")

    assert finding()[0] == "ok"
    assert finding()[1].startswith("1 of 1 active in ")
    (project.parent / ".slicewatch/keys.json").write_text("{")
    assert (finding()[0], "is damaged" in finding()[1]) == ("broken", True)
