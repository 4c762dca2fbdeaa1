"""Templates in YAML: parsing, and the lines that errors name."""

import json
from typing import Any

import pytest

from sfs.declarations import from_declaration, read_templates, to_declaration
from sfs.errors import InvalidFunction, UnreadableFile
from sfs.template import template
from sfs.validation import Metadata

GOOD = """\
# what we watch
slices:
  - name: keyword_please
    keyword: {field: text, words: [please, plz]}
    description: asks for something
    owner: trust
    severity: warning
    target: 0.9
    protected: true
    family: asks
  - {name: big_order, compare: {field: "like count", above: 100}}
  - name: risky
    all:
      - keyword: {field: text, words: ["no", offer]}
      - not: {missing: {field: text}}
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "slices.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_gives_its_templates_in_order(write):
    """YAML has the grammar of Python, metadata included."""
    please, big, risky = read_templates(write(GOOD))

    assert (
        please.fingerprint
        == template("keyword_please", keyword={"field": "text", "words": ["plz", "please"]}).fingerprint
    )
    assert (please.metadata.owner, please.metadata.target, please.metadata.protected) == ("trust", 0.9, True)
    assert big({"like count": 101}) is True
    assert risky({"text": "no offers"}) is True


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (GOOD.replace("owner", "ovner"), 6, "unknown key 'ovner'; did you mean 'owner'"),
        (GOOD.replace("words: [please", "word: [please"), 4, "unknown key 'word'; did you mean 'words'"),
        (GOOD.replace("above: 100", "above: many"), 11, "above must be a number, got 'many'"),
        (GOOD.replace("target: 0.9", "target: 90"), 8, "target must be an accuracy"),
        (GOOD.replace("severity: warning", "severity: grave"), 7, "severity must be one of"),
        (GOOD.replace("not: {missing", "not: {mising"), 15, "unknown key 'mising'; did you mean 'missing'"),
        (GOOD.replace('"no"', "no"), 14, 'YAML reads unquoted no as false: write "no" in quotes'),
        (GOOD.replace('"no"', "010"), 14, 'YAML reads unquoted 010 as 8: write "010" in quotes'),
        (GOOD.replace('"no"', "2020-01-01"), 14, "'2020-01-01' is read as a date: write it in quotes"),
        (GOOD.replace('"no"', "2020-13-41"), 14, "'2020-13-41' cannot be read"),
        (GOOD.replace("name: risky", "name: big_order"), 12, "duplicate template name 'big_order'"),
        (GOOD.replace("- name: risky\n    all", "- all"), 12, "a function name must be non-empty text"),
        (GOOD.replace("- name: risky", "- name: no"), 12, "got False: write a name, in quotes where YAML reads"),
        (GOOD.replace("family: asks", "owner: asks"), 10, "duplicate key 'owner'"),
        (GOOD + "  - just text\n", 16, "a template must be a mapping with a name and one kind"),
        (
            GOOD + "  - {name: x, regex: {field: text, pattern: 'a(?=b)'}}\n",
            16,
            "template 'x': pattern 'a(?=b)' is rejected by RE2",
        ),
        (GOOD + "  - {missing: {filed: a}}\n", 16, "unknown key 'filed'"),
        (GOOD + "  - {name: x}\n", 16, "exactly one kind"),
        (GOOD + "  - &a {name: x, not: *a}\n", 16, "an alias refers to its own parent"),
        (GOOD + "  - {[1]: x}\n", 16, "a key must be a scalar"),
        (GOOD + "slice: []\n", 16, "unknown key 'slice'; did you mean 'slices'"),
        ("slices: []\n", 1, "slices must be a non-empty list"),
        ("other: 1\n", 1, "unknown key 'other'; available: 'slices'"),
        ("- a\n", 1, "expected a mapping from the key slices"),
        ("", 1, "expected a mapping from the key slices"),
        ("{}", 1, "slices must be a non-empty list"),
    ],
)
def test_faults_name_the_file_and_the_line(write, text, line, message):
    """The line is that of the key or item in error."""
    path = write(text)

    with pytest.raises(InvalidFunction) as caught:
        read_templates(path)

    assert str(caught.value).startswith(f"{path}, line {line}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slices: [\n  a: }\n", "line 2: not YAML"),
        ("a: 1\n--- \nb: 2\n", "line 2: not YAML"),
        ("a: \x01\n", "not YAML"),
    ],
)
def test_a_file_that_is_not_yaml_is_unreadable(write, text, message):
    """The parser's reason is in the message."""
    with pytest.raises(UnreadableFile, match=message):
        read_templates(write(text))


def test_an_absent_file_is_unreadable(tmp_path):
    """The message names the file."""
    with pytest.raises(UnreadableFile, match=r"absent\.yaml: cannot be read"):
        read_templates(tmp_path / "absent.yaml")


def test_a_file_that_is_not_utf8_is_unreadable(tmp_path):
    """Encodings other than UTF-8 are rejected."""
    path = tmp_path / "slices.yaml"
    path.write_bytes("slices: [é]".encode("latin-1"))

    with pytest.raises(UnreadableFile, match="cannot be read"):
        read_templates(path)


def test_anchors_may_be_shared(write):
    """An alias outside its anchor is expanded."""
    text = "slices:\n  - {name: a, missing: &where {field: price}}\n  - {name: b, not: {missing: *where}}\n"

    assert [each.fields for each in read_templates(write(text))] == [{"price"}, {"price"}]


DECLARATION = {
    "name": "link",
    "any": [
        {"regex": {"field": "text", "pattern": r"\.ly"}},
        {"not": {"length": {"field": "text", "unit": "words", "at_least": 3}}},
    ],
    "owner": "trust",
    "target": 0.9,
    "protected": True,
}


def test_declarations_round_trip() -> None:
    """The declaration of a template gives a template of the same fingerprint and metadata."""
    first = from_declaration(DECLARATION)
    again = from_declaration(json.loads(json.dumps(to_declaration(first))))
    assert again.fingerprint == first.fingerprint
    assert again.metadata == first.metadata == Metadata(owner="trust", target=0.9, protected=True)


@pytest.mark.parametrize(
    ("declaration", "said"),
    [
        ({"name": "x"}, "kind"),
        ({"name": "x", "regex": {"field": "text", "pattern": "("}}, "regex > pattern: "),
        ({"name": "x", "missing": {"field": "price"}, "severity": "loud"}, "severity: "),
        ({"name": "x", "mising": {"field": "price"}}, "mising: "),
        ({"missing": {"field": "price"}}, "name"),
        ([], "a template must be a mapping"),
    ],
)
def test_a_wrong_declaration_names_its_part(declaration: Any, said: str) -> None:
    """The message names the part in error."""
    with pytest.raises(InvalidFunction, match=said):
        from_declaration(declaration)
