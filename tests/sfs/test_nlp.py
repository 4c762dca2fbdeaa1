"""Functions on documents parsed by spaCy: sharing, batches, memoization, fingerprints, pickles, and errors."""

import gc
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc

import sfs
from sfs.appliers import LFApplier, PandasLFApplier, PandasSFApplier, SFApplier, slice_dataframe
from sfs.apply import apply, apply_with_stats
from sfs.checks import check_function
from sfs.errors import InvalidFunction
from sfs.function import LabelingFunctionSlice, SlicingFunction, slicing_function
from sfs.nlp import (
    NLPLabelingFunction,
    NLPSlicingFunction,
    SpacyPreprocessor,
    nlp_labeling_function,
    nlp_slicing_function,
)
from sfs.preprocess import preprocessor
from sfs.record import Record
from sfs.registry import FunctionSet

TEXTS = ["Please subscribe to my channel", "Cool video! http://x.ly/2", "Who sings this?", "", "please subscribe"]
PATTERNS = [
    {"label": "ASK", "pattern": [{"LOWER": "please"}, {"LOWER": "subscribe"}]},
    {"label": "LINK", "pattern": [{"LIKE_URL": True}]},
]
OTHER = [{"label": "OTHER", "pattern": "other"}]
ASKS = [True, False, False, False, True]


def ruled(patterns: list[Any] = PATTERNS) -> Language:
    """Return a pipeline of rules."""
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(patterns)
    nlp.add_pipe("sentencizer")
    return nlp


@pytest.fixture
def nlp() -> Language:
    """A pipeline of rules."""
    return ruled()


@pytest.fixture
def parsed(nlp: Language) -> list[str]:
    """The texts that the pipeline parses from now on."""
    texts: list[str] = []
    make = nlp.make_doc

    def noted(text: str) -> Doc:
        texts.append(text)
        return make(text)

    nlp.make_doc = noted
    return texts


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Function that installs the pipeline of rules as a package, in a version, and returns its name."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def install(version: str) -> str:
        package = tmp_path / "site" / "en_tiny_rules"
        package.mkdir(parents=True, exist_ok=True)
        nlp = ruled()
        nlp.meta["version"] = version
        nlp.to_disk(package / "pipeline")
        load = "def load(**settings): return spacy.load(Path(__file__).parent / 'pipeline', **settings)"
        (package / "__init__.py").write_text(f"import spacy\nfrom pathlib import Path\n\n{load}\n")
        for old in package.parent.glob("*.dist-info"):
            (old / "METADATA").unlink()
            old.rmdir()
        info = package.parent / f"en_tiny_rules-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: en-tiny-rules\nVersion: {version}\n")
        sys.modules.pop(package.name, None)
        return package.name

    yield install
    sys.modules.pop("en_tiny_rules", None)


def asks_of(language: Any, **options: Any) -> NLPSlicingFunction:
    return NLPSlicingFunction(
        "asks", lambda x: any(e.label_ == "ASK" for e in x.doc.ents), language=language, **options
    )


def links_of(language: Any, **options: Any) -> NLPSlicingFunction:
    return NLPSlicingFunction("links", lambda x: "LINK" in {e.label_ for e in x.doc.ents}, language=language, **options)


def frame_of(texts: list[Any]) -> pd.DataFrame:
    return pd.DataFrame({"text": texts, "likes": range(len(texts))}, index=range(len(texts), 0, -1))


def test_the_names_are_public() -> None:
    """All five names are names of sfs."""
    for kind in (
        SpacyPreprocessor,
        NLPSlicingFunction,
        NLPLabelingFunction,
        nlp_slicing_function,
        nlp_labeling_function,
    ):
        assert getattr(sfs, kind.__name__) is kind
        assert kind.__name__ in sfs.__all__


def test_importing_sfs_does_not_import_spacy() -> None:
    """spaCy is imported when the first function is made."""
    code = "import sfs, sys; sys.exit('spacy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_extra_the_command_to_install_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is that of an invalid function, which names the file and line in a functions file."""
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(InvalidFunction, match=r"pip install 'slicewatch\[spacy\]'"):
        nlp_slicing_function()(lambda x: True)


def test_a_model_that_is_not_installed_is_named() -> None:
    """The error has the command that downloads it, and the alternative."""
    with pytest.raises(
        InvalidFunction, match=r"'en_core_web_xs' is not installed: run `python -m spacy download en_core"
    ):
        SpacyPreprocessor("text", "doc", "en_core_web_xs")


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    """The error has spaCy's reason."""
    with pytest.raises(InvalidFunction, match=r"cannot be loaded: OSError: .*meta\.json"):
        SpacyPreprocessor("text", "doc", tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": 3}, "a Language object, got 3"),
        ({"disable": "ner"}, "disable must be a list of names of pipes, got 'ner'"),
        ({"disable": [1]}, r"disable must be a list of names of pipes, got \[1\]"),
        ({"disable": 1}, "disable must be a list of names of pipes, got 1"),
        ({"text_field": None}, "must be text, got None"),
        ({"doc_field": 3}, "must be text, got 3"),
        ({"memoize_size": 0}, "memoize_size"),
        ({"gpu": True}, "gpu is for a model by name"),
        ({"pre": [1]}, "not a preprocessor"),
    ],
)
def test_settings_are_validated(nlp: Language, settings: dict[str, Any], message: str) -> None:
    """A setting of the wrong type or value is named."""
    with pytest.raises(InvalidFunction, match=message):
        NLPSlicingFunction("f", lambda x: True, **{"language": nlp, **settings})


@pytest.mark.parametrize("decorator", [nlp_slicing_function, nlp_labeling_function])
def test_a_decorator_without_parentheses_is_named(decorator: Any) -> None:
    """The message names the decorator."""
    with pytest.raises(InvalidFunction, match=rf"missing parentheses! Write @{decorator.__name__}\(\)"):
        decorator(lambda x: True)


def test_a_decorated_function_has_name_metadata_and_budget(nlp: Language) -> None:
    """The decorator takes the arguments of slicing_function, and those of the preprocessor."""

    @nlp_slicing_function(resources={"least": 3}, language=nlp, owner="trust", budget_ms=20, doc_field="tokens")
    def long(x, least):
        "At least three words."
        return len(x.tokens) >= least

    assert isinstance(long, SlicingFunction)
    assert (long.name, long.metadata.owner, long.metadata.description, long.budget_ms) == (
        "long", "trust", "At least three words.", 20.0
    )  # fmt: skip
    assert (long({"text": "one two three"}), long({"text": "one"})) == (True, False)
    assert repr(long) == "NLPSlicingFunction long, Preprocessors: [SpacyPreprocessor SpacyPreprocessor, Pre: []]"


def test_a_labelling_function_returns_labels(nlp: Language) -> None:
    """A label, or -1 for an abstention; the slice of its votes works, too."""

    @nlp_labeling_function(language=nlp)
    def asks(x):
        return 1 if any(e.label_ == "ASK" for e in x.doc.ents) else -1

    assert isinstance(asks, NLPLabelingFunction)
    assert not isinstance(asks, SlicingFunction)
    assert [asks({"text": text}) for text in TEXTS] == [1, -1, -1, -1, 1]
    assert PandasLFApplier([asks]).apply(frame_of(TEXTS), progress_bar=False)[:, 0].tolist() == [1, -1, -1, -1, 1]
    assert apply([LabelingFunctionSlice(asks)], frame_of(TEXTS)).member[:, 0].tolist() == ASKS


@pytest.mark.parametrize("memoize", [False, True])
def test_every_door_gives_the_same_memberships(nlp: Language, memoize: bool) -> None:
    """Frames, mappings and objects; single rows and batches."""
    asks, frame = asks_of(nlp, memoize=memoize), frame_of(TEXTS)
    mappings = frame.to_dict("records")
    assert apply([asks], frame).member[:, 0].tolist() == ASKS
    assert apply([asks], mappings).member[:, 0].tolist() == ASKS
    assert PandasSFApplier([asks]).apply(frame, progress_bar=False)["asks"].tolist() == ASKS
    assert SFApplier([asks]).apply(mappings, progress_bar=False)["asks"].tolist() == ASKS
    objects = [SimpleNamespace(text=text) for text in TEXTS]
    assert SFApplier([asks]).apply(objects, progress_bar=False)["asks"].tolist() == ASKS
    assert [asks(row) for row in mappings] == ASKS
    assert [asks(row) for _, row in frame.iterrows()] == ASKS
    assert slice_dataframe(frame, asks)["text"].tolist() == [TEXTS[0], TEXTS[4]]


@pytest.mark.parametrize("memoize", [False, True])
def test_functions_with_the_same_settings_parse_a_row_once(nlp: Language, parsed: list[str], memoize: bool) -> None:
    """They have one preprocessor; the order of disabled pipes does not matter."""
    asks = asks_of(nlp, memoize=memoize, disable=["a", "b"])
    links = links_of(nlp, memoize=memoize, disable=("b", "a", "b"))
    assert asks.pre[0] is links.pre[0]
    S = apply([asks, links], frame_of(TEXTS))
    assert S.member.T.tolist() == [ASKS, [False, True, False, False, False]]
    assert sorted(parsed) == sorted(TEXTS)


@pytest.mark.parametrize(
    "settings",
    [
        {"text_field": "title"},
        {"doc_field": "other"},
        {"disable": ["entity_ruler"]},
        {"memoize": False},
        {"pre": [preprocessor()(lambda x: x)]},
        {"language": ruled()},
        {"language": ruled(OTHER)},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_functions_with_other_settings_have_preprocessors_of_their_own(nlp: Language, settings: dict[str, Any]) -> None:
    """Another language object counts, also one with the same rules."""
    assert asks_of(nlp).pre[0] is not asks_of(**{"language": nlp, **settings}).pre[0]


def test_functions_of_other_languages_get_documents_of_their_own(nlp: Language) -> None:
    """Functions with two language objects run side by side."""
    asks, links = asks_of(nlp), links_of(ruled(OTHER))
    S = apply([asks, links], [{"text": "please subscribe to http://x.ly"}])
    assert (S.member.tolist(), S.unknown.any()) == ([[True, False]], False)


def test_a_preprocessor_is_shared_only_while_it_is_used(nlp: Language) -> None:
    """The last function takes preprocessor and documents with it."""
    asks, links = asks_of(nlp), links_of(nlp)
    parse = weakref.ref(asks.pre[0])
    del asks
    gc.collect()
    assert parse() is links.pre[0]
    del links
    gc.collect()
    assert parse() is None


def test_a_disabled_pipe_does_not_run(nlp: Language) -> None:
    """Alone, in a batch, and in no other function; names of absent pipes are ignored."""
    off, on = asks_of(nlp, disable=["entity_ruler", "ner"]), links_of(nlp)
    assert not off({"text": TEXTS[0]})
    assert apply([off, on], frame_of(TEXTS)).member.sum(axis=0).tolist() == [0, 1]
    assert nlp.pipe_names == ["entity_ruler", "sentencizer"]


@pytest.mark.parametrize("text", [None, 3, 2.5, float("nan"), b"please subscribe", ["please subscribe"], pd.NA])
def test_a_value_that_is_no_text_makes_only_its_row_unknown(nlp: Language, text: Any) -> None:
    """The reason is counted and names the field, in every applier."""
    asks, frame = asks_of(nlp), frame_of([*TEXTS, text])
    result = apply_with_stats([asks], frame)
    assert result.matrix.unknown[:, 0].tolist() == [False] * 5 + [True]
    assert result.matrix.member[:5, 0].tolist() == ASKS
    assert result.stats[0].unknown == {"TypeError": 1}
    assert "field 'text' must be text to be parsed" in result.stats[0].first_fault
    assert "(in preprocessor 'SpacyPreprocessor')" in result.stats[0].first_fault
    S, meta = PandasSFApplier([asks]).apply(frame, progress_bar=False, fault_tolerant=True, return_meta=True)
    assert (S["asks"].tolist(), meta.faults) == ([*ASKS, -1], {"asks": 1})
    with pytest.raises(TypeError, match="must be text to be parsed"):
        PandasSFApplier([asks]).apply(frame, progress_bar=False)


def test_a_row_without_the_field_is_unknown(nlp: Language) -> None:
    """The other rows of the batch are parsed."""
    result = apply_with_stats([asks_of(nlp)], [{"text": TEXTS[0]}, {"title": "x"}, {"text": "hi"}])
    assert result.matrix.unknown[:, 0].tolist() == [False, True, False]
    assert result.stats[0].unknown == {"AttributeError": 1}


def test_unpaired_surrogates_can_be_parsed(nlp: Language) -> None:
    """They become U+FFFD, alone and in a batch, and the length of the text stays."""
    f = NLPSlicingFunction("f", lambda x: x.doc.text == "a\ufffdb" and x.text == "a\ud800b", language=nlp)
    assert f({"text": "a\ud800b"})
    assert apply([f], [{"text": "a\ud800b"}] * 3).member.all()


def failing_on(nlp: Language, bad: str, error: type[BaseException]) -> Language:
    """Return the pipeline with a last pipe that raises on one text."""

    name = f"raises_{error.__name__}"

    @Language.component(name)
    def fails(doc: Doc) -> Doc:
        if doc.text == bad:
            raise error("no such text")
        return doc

    nlp.add_pipe(name)
    return nlp


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_pipe_that_raises_makes_only_its_row_unknown(nlp: Language, error: type[BaseException]) -> None:
    """The batch it is in is parsed all the same."""
    result = apply_with_stats([asks_of(failing_on(nlp, TEXTS[1], error))], frame_of(TEXTS))
    assert result.matrix.unknown[:, 0].tolist() == [False, True, False, False, False]
    assert result.matrix.member[:, 0].tolist() == ASKS
    assert result.stats[0].unknown == {error.__name__: 1}


def test_a_pipeline_may_drop_texts_of_a_batch(nlp: Language) -> None:
    """With an error handler that ignores errors, every row keeps its own document."""
    failing_on(nlp, TEXTS[1], ZeroDivisionError).set_error_handler(lambda *_: None)
    same = NLPSlicingFunction("same", lambda x: x.doc.text == x.text, language=nlp)
    assert apply([same], frame_of(TEXTS)).member.all()


@pytest.mark.parametrize("memoize", [False, True])
def test_rows_are_parsed_in_batches(nlp: Language, memoize: bool) -> None:
    """The pipeline gets texts together, not one at a time; results are in the order of the rows."""
    sizes: list[int] = []

    class Batches:
        def __call__(self, doc: Doc) -> Doc:
            return doc

        def pipe(self, docs: Iterator[Doc], batch_size: int) -> Iterator[Doc]:
            together = list(docs)
            sizes.append(len(together))
            yield from together

    Language.factory("notes_batches", func=lambda nlp, name: Batches())
    nlp.add_pipe("notes_batches")
    texts = [f"text {n % 300}" for n in range(600)]
    same = NLPSlicingFunction("same", lambda x: x.doc.text == x.text, language=nlp, memoize=memoize)
    assert apply([same], [{"text": text} for text in texts]).member.all()
    assert max(sizes) > 100
    assert sum(sizes) == (300 if memoize else 600)


def test_a_preprocessor_before_derives_the_text(nlp: Language) -> None:
    """The text of a batch is that which the earlier preprocessor sets, memoized or not."""

    @preprocessor()
    def tidy(x):
        x.clean = x.text.strip("*")
        return x

    rows = [{"text": f"**{text}**"} for text in TEXTS]
    for memoize in (False, True):
        asks = asks_of(nlp, text_field="clean", pre=[tidy], memoize=memoize)
        assert apply([asks], rows).member[:, 0].tolist() == ASKS


def test_a_preprocessor_can_read_the_document(nlp: Language) -> None:
    """SpacyPreprocessor is a preprocessor like any other: in pre of functions and of memoized preprocessors."""
    parse = SpacyPreprocessor("text", "doc", nlp)

    @preprocessor(pre=[parse], memoize=True)
    def labels(x):
        x.labels = [e.label_ for e in x.doc.ents]
        return x

    @slicing_function(pre=[labels])
    def asks(x):
        return "ASK" in x.labels and x.doc.vocab is nlp.vocab

    assert apply([asks], frame_of(TEXTS)).member[:, 0].tolist() == ASKS
    assert (
        SFApplier([asks]).apply([SimpleNamespace(text=t) for t in TEXTS], progress_bar=False)["asks"].tolist() == ASKS
    )


def test_equal_rows_are_parsed_once_if_memoized(nlp: Language, parsed: list[str]) -> None:
    """Across calls and batches, up to memoize_size rows; reset_cache forgets them."""
    asks = asks_of(nlp, memoize_size=2)
    for text in ("a", "b", "a", "c", "b"):
        asks(Record({"text": text}))
    assert parsed == ["a", "b", "c", "b"]
    apply([asks], [{"text": text} for text in ("c", "b", "b")])
    assert parsed == ["a", "b", "c", "b"]
    asks.pre[0].reset_cache()
    asks(Record({"text": "b"}))
    assert parsed[4:] == ["b"]


def test_a_memo_key_may_be_the_text(nlp: Language, parsed: list[str]) -> None:
    """Rows that differ in other fields then share a document."""
    asks = asks_of(nlp, memoize_key=lambda x: x.text)
    apply([asks], [{"text": "a", "likes": n} for n in range(3)])
    assert parsed == ["a"]


@pytest.mark.parametrize("row", [Record({"text": "a b"}), SimpleNamespace(text="a b"), {"text": "a b"}], ids=repr)
def test_a_memoized_document_is_not_changed_by_its_readers(nlp: Language, row: Any) -> None:
    """Each gets a copy of the document, with the vocabulary of the pipeline."""
    preprocess = SpacyPreprocessor("text", "doc", nlp, memoize=True)

    def parse(row: Any) -> Any:
        result = preprocess(row)
        return SimpleNamespace(**result) if isinstance(result, dict) else result

    first = parse(row)
    first.doc.user_data["seen"] = True
    with first.doc.retokenize() as retokenizer:
        retokenizer.merge(first.doc[0:2])
    for again in (parse(row), parse(row)):
        assert (len(again.doc), again.doc.user_data) == (2, {})
        assert again.doc.vocab is nlp.vocab


def test_the_given_row_is_not_changed(nlp: Language) -> None:
    """The document is a field of a copy."""
    row = SimpleNamespace(text="a b")
    parsed_row = SpacyPreprocessor("text", "doc", nlp)(row)
    assert len(parsed_row.doc) == 2
    assert vars(row) == {"text": "a b"}


def test_a_saved_pipeline_is_loaded_by_its_path(nlp: Language, tmp_path: Path) -> None:
    """Functions share the model; a folder that is written again is loaded again."""
    nlp.to_disk(tmp_path / "rules")
    asks, links = asks_of(tmp_path / "rules"), links_of(str(tmp_path / "rules"))
    assert asks.pre[0] is links.pre[0]
    assert apply([asks], frame_of(TEXTS)).member[:, 0].tolist() == ASKS
    ruled(OTHER).to_disk(tmp_path / "rules")
    meta = tmp_path / "rules/meta.json"
    meta.write_text(meta.read_text())
    later = asks_of(tmp_path / "rules")
    assert not later({"text": TEXTS[0]})
    assert later.fingerprint != asks.fingerprint


def test_an_installed_model_is_loaded_by_its_name(installed: Callable[[str], str]) -> None:
    """The fingerprint covers name and version, and is that of any process."""
    name = installed("1.0.0")
    asks, links = asks_of(name), links_of(name)
    assert asks.pre[0] is links.pre[0]
    assert apply([asks], frame_of(TEXTS)).member[:, 0].tolist() == ASKS
    assert asks.fingerprint != asks_of(ruled()).fingerprint
    first = asks.fingerprint
    del asks, links
    gc.collect()
    assert asks_of(name).fingerprint == first
    gc.collect()
    assert asks_of(installed("1.0.1")).fingerprint != first


def test_a_gpu_is_used_if_there_is_one(installed: Callable[[str], str]) -> None:
    """Without one the model is loaded on the CPU."""
    assert asks_of(installed("1.0.0"), gpu=True)({"text": TEXTS[0]})


@pytest.mark.parametrize(
    "change",
    [
        lambda: {"disable": ["sentencizer"]},
        lambda: {"text_field": "title"},
        lambda: {"doc_field": "other"},
        lambda: {"pre": [preprocessor("p")(lambda x: x)]},
        lambda: {"language": ruled(PATTERNS[:1])},
        lambda: {"language": ruled([*PATTERNS, {"label": "B", "pattern": "b"}])},
        lambda: {"language": spacy.blank("de")},
        lambda: {"language": spacy.blank("en")},
        lambda: {"language": renamed()},
        lambda: {"language": tokenizing()},
    ],
)
def test_the_fingerprint_changes_with(change: Callable[[], dict[str, Any]]) -> None:
    """Disabled pipes, fields, rules, language, pipes, meta data, and the tokenizer."""
    assert asks_of(**{"language": ruled(), **change()}).fingerprint != asks_of(ruled()).fingerprint


def renamed() -> Language:
    nlp = ruled()
    nlp.meta["name"] = "other"
    return nlp


def tokenizing() -> Language:
    nlp = ruled()
    nlp.tokenizer.add_special_case("gimme", [{"ORTH": "gim"}, {"ORTH": "me"}])
    return nlp


@pytest.mark.parametrize("settings", [{"memoize": False}, {"memoize_size": 5}, {"disable": []}])
def test_the_fingerprint_does_not_change_with(settings: dict[str, Any]) -> None:
    """Memoization, and what the pipeline has parsed before."""
    nlp = ruled()
    list(nlp.pipe(["new words in the vocabulary", *TEXTS]))
    assert asks_of(nlp, **settings).fingerprint == asks_of(ruled()).fingerprint


def test_the_code_of_a_pipe_is_part_of_the_fingerprint(module_of: Callable[[str], Any]) -> None:
    """A component of the function's own file is covered by its code."""
    code = """
        import spacy
        from spacy.language import Language
        from sfs import nlp_slicing_function

        @Language.component("counts_words")
        def counts_words(doc):
            doc.user_data["n"] = {n}
            return doc

        nlp = spacy.blank("en")
        nlp.add_pipe("counts_words")

        @nlp_slicing_function(language=nlp)
        def long(x):
            return x.doc.user_data["n"] > 3
    """
    one, same, other = (module_of(code.replace("{n}", n)).long for n in ("len(doc)", "len(doc)", "5"))
    assert one.fingerprint == same.fingerprint != other.fingerprint


FILE = """
import spacy
from sfs import nlp_labeling_function, nlp_slicing_function

nlp = spacy.blank("en")
nlp.add_pipe("entity_ruler").add_patterns([
    {"label": "ASK", "pattern": [{"LOWER": {"IN": ["please", "plz"]}}]}, {"label": "C", "pattern": "check"},
])
nlp.add_pipe("sentencizer")
nlp.add_pipe("attribute_ruler").add(patterns=[[{"LOWER": "cool"}]], attrs={"TAG": "NN"})

@nlp_slicing_function(language=nlp)
def asks(x):
    return any(e.label_ == "ASK" for e in x.doc.ents)

@nlp_slicing_function(language=nlp)
def two_sentences(x):
    return len(list(x.doc.sents)) > 1
"""


def test_fingerprints_are_equal_in_every_process(tmp_path: Path) -> None:
    """With other hashes of texts, on which the order of sets depends."""
    path = tmp_path / "slices.py"
    path.write_text(FILE)
    code = f"from sfs import FunctionSet; print(FunctionSet.from_file({str(path)!r}).hash)"
    for seed in "01":
        environ = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environ)
        assert done.stdout.strip() == FunctionSet.from_file(path).hash, done.stderr


def test_functions_of_a_file_pass_the_checks(tmp_path: Path) -> None:
    """Deterministic, total on any text, picklable, and within their budget."""
    path = tmp_path / "slices.py"
    path.write_text(FILE.replace("(language=nlp)", "(language=nlp, budget_ms=60_000)"))
    rows = [{"text": text, "likes": 3} for text in TEXTS]
    for function in FunctionSet.from_file(path):
        checks = check_function(function, rows, never_missing=["text"])
        assert [each for each in checks if not each.passed] == []


def labels(x: Any) -> bool:
    return any(e.label_ == "ASK" for e in x.doc.ents)


def test_functions_can_be_pickled_by_their_parts(nlp: Language, tmp_path: Path) -> None:
    """A language object is part of the pickle, a model by name or path is loaded again; both stay shared."""
    nlp.to_disk(tmp_path / "rules")
    for language in (nlp, tmp_path / "rules"):
        one = NLPSlicingFunction("one", labels, language=language, memoize_size=7)
        two = NLPSlicingFunction("two", labels, language=language, memoize_size=7)
        again = pickle.loads(pickle.dumps([one, two]))  # noqa: S301  # our own bytes
        assert again[0].pre[0] is again[1].pre[0]
        assert apply(again, frame_of(TEXTS)).member.T.tolist() == [ASKS, ASKS]
        assert again[0].fingerprint == one.fingerprint


def test_lists_of_objects_can_be_labelled(nlp: Language) -> None:
    """LFApplier passes any object with attributes."""
    asks = NLPLabelingFunction("asks", lambda x: 0 if len(x.doc) > 3 else -1, language=nlp)
    rows = [SimpleNamespace(text=text) for text in TEXTS]
    assert LFApplier([asks]).apply(rows, progress_bar=False)[:, 0].tolist() == [0, 0, 0, -1, -1]
