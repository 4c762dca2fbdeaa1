"""Slicing and labelling functions on documents parsed by spaCy; they need the extra ``spacy``.

spaCy is imported when the first of them is created, and its model is loaded then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock, local
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack
from weakref import WeakValueDictionary

from sfs.errors import InvalidFunction
from sfs.function import Decorator, LabelingFunction, MetadataKwargs, SlicingFunction, make_decorator
from sfs.preprocess import Preprocessor
from sfs.validation import NO_METADATA, Metadata, short_repr

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

DEFAULT_LANGUAGE = "en_core_web_sm"
"""Name of spaCy's small English model."""
MEMOIZED_DOCUMENTS = 1_000
"""Default number of memoized documents: each takes about 1 kB per word, so fewer than of other results."""

LanguageOrName: TypeAlias = "str | os.PathLike[str] | Language"
"""An installed model by name, the folder of a saved pipeline, or a pipeline."""

_BATCH_ROWS = 256
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNCOVERED_META = ("spacy_version", "spacy_git_version")  # of the machine, not of the pipeline

# Models are shared for as long as a function uses them: each takes seconds to load, and up to gigabytes of memory.
_lock = Lock()
_loaded: WeakValueDictionary[tuple[Any, ...], Language] = WeakValueDictionary()
_in_use: WeakValueDictionary[tuple[Any, ...], SpacyPreprocessor] = WeakValueDictionary()


class SpacyPreprocessor(Preprocessor):
    """Preprocessor that parses the text of a row with spaCy, and sets the resulting ``Doc`` as a new field.

    A row whose text is missing or is not text raises TypeError, which makes memberships unknown. Unpaired surrogates,
    which spaCy cannot read, become U+FFFD. The appliers parse texts in batches, which is several times faster for
    trained models, and may change the last digits of scores; a memoized one with ``pre`` parses row by row.

    Parameters
    ----------
    text_field
        Field with the text.
    doc_field
        New field for the ``Doc``.
    language
        Name of an installed spaCy model, path of a saved pipeline, or a ``Language`` object such as
        ``spacy.blank("en")``. Complete the object before it is used: its state is read once for the fingerprint.
    disable
        Names of pipes to skip; names that the pipeline does not have are ignored, as in spaCy.
    pre, memoize, memoize_key, memoize_size
        As in ``Preprocessor``.
    gpu
        Whether to load the model on a GPU if there is one; for a name or path only. Processes forked from the one
        that loaded it, such as those of the service, cannot use it.

    Raises
    ------
    InvalidFunction
        If spaCy or the model is not installed, or an argument is invalid.

    Examples
    --------
    >>> import spacy
    >>> from sfs.record import Record
    >>> parse = SpacyPreprocessor("text", "doc", spacy.blank("en"))
    >>> [token.text for token in parse(Record({"text": "Cool video!"})).doc]
    ['Cool', 'video', '!']
    """

    def __init__(
        self,
        text_field: str,
        doc_field: str,
        language: LanguageOrName = DEFAULT_LANGUAGE,
        disable: Sequence[str] | None = None,
        pre: Sequence[Preprocessor] | None = None,
        memoize: bool = False,
        memoize_key: Callable[[Any], Any] | None = None,
        gpu: bool = False,
        memoize_size: int = MEMOIZED_DOCUMENTS,
    ) -> None:
        name = type(self).__name__
        for field in (text_field, doc_field):
            if not isinstance(field, str):
                raise InvalidFunction(f"text_field and doc_field of {name} must be text, got {short_repr(field)}")
        super().__init__(name, {"text": text_field}, {"doc": doc_field}, pre, memoize, memoize_key, memoize_size)
        self.text_field, self.doc_field = text_field, doc_field
        self.disable = _pipe_names(disable)
        self.gpu, self.memoize_size = gpu, memoize_size
        self.language = os.fspath(language) if isinstance(language, os.PathLike) else language
        """The pipeline as it was given: a name, a path or an object."""
        self._nlp = _pipeline(self.language, gpu)
        self._ahead = _ParsedAhead()

    def run(self, text: Any) -> dict[str, Doc]:
        """Return the parsed document of a text.

        Raises
        ------
        TypeError
            If the value is not text.
        """
        if not isinstance(text, str):
            raise TypeError(f"field {self.text_field!r} must be text to be parsed, got {short_repr(text)}")
        waiting = self._ahead.documents.get(text)
        return {"doc": waiting.pop() if waiting else self._nlp(_readable(text), disable=self.disable)}

    def rows_ahead(self, rows: Sequence[Any]) -> Iterator[Any]:
        """Yield the rows, each before it is preprocessed; parse their texts in batches meanwhile."""
        documents = self._ahead.documents
        try:
            for start in range(0, len(rows), _BATCH_ROWS):
                batch = rows[start : start + _BATCH_ROWS]
                if len(batch) > 1:
                    self._parse_ahead(batch)
                yield from batch
                documents.clear()
        finally:
            documents.clear()

    def _parse_ahead(self, rows: Sequence[Any]) -> None:
        """Parse the texts of the coming calls of ``run``, which parses the others itself."""
        if self.memoize and self.pre:
            return  # the text may be a field that they derive
        texts: list[str] = []
        keys: set[Hashable] = set()
        for row in rows:
            with suppress(Exception, SystemExit):  # raised again, and counted, when the row is preprocessed
                if self.memoize:
                    key = self._memo_key(row)
                    if key in keys or key in self._cache:
                        continue
                    keys.add(key)
                text = self._arguments(row)["text"]
                if isinstance(text, str):
                    texts.append(text)
        given = ((_readable(text), text) for text in texts)
        with suppress(Exception, SystemExit):  # as above, and the batch ends at the row that raises
            for doc, text in self._nlp.pipe(given, as_tuples=True, batch_size=_BATCH_ROWS, disable=self.disable):
                self._ahead.documents.setdefault(text, []).append(doc)

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return the parts that the fingerprint covers: name, fields, pipeline, disabled pipes and preprocessors.

        A subclass is covered, too; it adds settings of its own.
        """
        kind = None if type(self) is SpacyPreprocessor else type(self)  # not the code of this module
        fields = self.text_field, self.doc_field
        return "spacy", self.name, kind, fields, self._identity, self.disable, self.pre

    @cached_property
    def _identity(self) -> Any:
        """Name and version of an installed model; otherwise the configuration and content of the pipeline."""
        from spacy.util import is_package

        if isinstance(self.language, str) and is_package(self.language):
            return self.language, self._nlp.meta["version"]
        meta = {key: value for key, value in self._nlp.meta.items() if key not in _UNCOVERED_META}
        config = {section: self._nlp.config[section] for section in ("nlp", "components")}
        pipes = [(name, pipe) for name, pipe in self._nlp.pipeline if name not in self.disable]
        return meta, config, [(name, _content(pipe)) for name, pipe in (("", self._nlp.tokenizer), *pipes)]

    @property
    def _sharing_key(self) -> tuple[Any, ...]:
        memo = self.memoize, self.memoize_key, self.memoize_size
        return type(self), self.text_field, self.doc_field, self._nlp, self.disable, self.pre, *memo

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("_nlp", "_ahead")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._nlp = _pipeline(self.language, self.gpu)
        self._ahead = _ParsedAhead()


class NLPLabelingFunction(LabelingFunction):
    """Labelling function on a document parsed by spaCy; see ``nlp_labeling_function``.

    Functions with the same fields, language, disabled pipes and other settings share a preprocessor, and so parse
    a row once. The same language means the same name, or the same object.

    Parameters
    ----------
    name, f, resources, metadata, budget_ms
        As in ``LabelingFunction``. Parsing counts as time of the function.
    pre
        Preprocessors to run before the text is parsed.
    text_field, doc_field, language, disable, memoize, memoize_key, gpu, memoize_size
        As in ``SpacyPreprocessor``.

    Raises
    ------
    InvalidFunction
        If spaCy or the model is not installed, or an argument is invalid.
    """

    def __init__(
        self,
        name: str,
        f: Callable[..., Any],
        resources: Mapping[str, Any] | None = None,
        pre: Sequence[Preprocessor] | None = None,
        text_field: str = "text",
        doc_field: str = "doc",
        language: LanguageOrName = DEFAULT_LANGUAGE,
        disable: Sequence[str] | None = None,
        memoize: bool = True,
        memoize_key: Callable[[Any], Any] | None = None,
        gpu: bool = False,
        memoize_size: int = MEMOIZED_DOCUMENTS,
        *,
        metadata: Metadata = NO_METADATA,
        budget_ms: float | None = None,
    ) -> None:
        parse = SpacyPreprocessor(
            text_field, doc_field, language, disable, pre, memoize, memoize_key, gpu, memoize_size
        )
        super().__init__(name, f, resources, [_shared(parse)], metadata=metadata, budget_ms=budget_ms)


class NLPSlicingFunction(NLPLabelingFunction, SlicingFunction):
    """Slicing function on a document parsed by spaCy; see ``nlp_slicing_function`` and ``NLPLabelingFunction``.

    Examples
    --------
    >>> import spacy
    >>> short = NLPSlicingFunction("short", lambda x: len(x.doc) < 5, language=spacy.blank("en"))
    >>> short({"text": "Cool video!"})
    True
    """


def nlp_labeling_function(
    name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    pre: Sequence[Preprocessor] | None = None,
    text_field: str = "text",
    doc_field: str = "doc",
    language: LanguageOrName = DEFAULT_LANGUAGE,
    disable: Sequence[str] | None = None,
    memoize: bool = True,
    memoize_key: Callable[[Any], Any] | None = None,
    gpu: bool = False,
    memoize_size: int = MEMOIZED_DOCUMENTS,
    **metadata: Unpack[MetadataKwargs],
) -> Decorator[NLPLabelingFunction]:
    """Decorator to define a labelling function on a document parsed by spaCy; see ``nlp_slicing_function``.

    Examples
    --------
    >>> import spacy
    >>> @nlp_labeling_function(language=spacy.blank("en"))
    ... def asks(x):
    ...     return 1 if x.doc[-1].text == "?" else -1
    >>> asks({"text": "Who sings?"}), asks({"text": "Cool video!"})
    (1, -1)
    """
    settings = text_field, doc_field, language, disable, memoize, memoize_key, gpu, memoize_size
    return make_decorator(NLPLabelingFunction, "nlp_labeling_function", name, resources, pre, metadata, settings)


def nlp_slicing_function(
    name: str | None = None,
    resources: Mapping[str, Any] | None = None,
    pre: Sequence[Preprocessor] | None = None,
    text_field: str = "text",
    doc_field: str = "doc",
    language: LanguageOrName = DEFAULT_LANGUAGE,
    disable: Sequence[str] | None = None,
    memoize: bool = True,
    memoize_key: Callable[[Any], Any] | None = None,
    gpu: bool = False,
    memoize_size: int = MEMOIZED_DOCUMENTS,
    **metadata: Unpack[MetadataKwargs],
) -> Decorator[NLPSlicingFunction]:
    """Decorator to define a slicing function on a document parsed by spaCy, the field ``doc`` of the row.

    Parameters
    ----------
    name, resources, **metadata
        As in ``slicing_function``.
    pre, text_field, doc_field, language, disable, memoize, memoize_key, gpu, memoize_size
        As in ``NLPLabelingFunction``.

    Raises
    ------
    InvalidFunction
        If spaCy or the model is not installed, the decorator is used without parentheses, or an argument is invalid.

    Examples
    --------
    >>> import spacy
    >>> @nlp_slicing_function(language=spacy.blank("en"), owner="trust")
    ... def has_link(x):
    ...     "Contains the address of a page."
    ...     return any(token.like_url for token in x.doc)
    >>> has_link({"text": "Check out bit.ly/x1"})
    True
    """
    settings = text_field, doc_field, language, disable, memoize, memoize_key, gpu, memoize_size
    return make_decorator(NLPSlicingFunction, "nlp_slicing_function", name, resources, pre, metadata, settings)


class _ParsedAhead(local):
    """Documents of a thread that were parsed in a batch, by text, and are not used yet."""

    def __init__(self) -> None:
        self.documents: dict[str, list[Doc]] = {}


def _shared(parse: SpacyPreprocessor) -> SpacyPreprocessor:
    """Return the preprocessor with the settings of the given one that other functions use, or itself."""
    with _lock:
        return _in_use.setdefault(parse._sharing_key, parse)


def _pipeline(language: str | Language, gpu: bool) -> Language:
    """Return a pipeline that was given, or load it by its name or path; functions share one that is in use."""
    try:
        import spacy
    except ImportError:
        raise InvalidFunction(
            "functions on documents need spaCy: install it with pip install 'slicewatch[spacy]'"
        ) from None
    if isinstance(language, spacy.language.Language):
        if gpu:
            raise InvalidFunction("gpu is for a model by name: call spacy.prefer_gpu() before creating the Language")
        return language
    if not isinstance(language, str):
        raise InvalidFunction(
            f"language must be the name or path of a model, or a Language object, got {short_repr(language)}"
        )
    meta = Path(language) / "meta.json"
    key = language, gpu, meta.stat().st_mtime_ns if meta.is_file() else None  # a folder may be written again
    with _lock:
        found = _loaded.get(key)
        if found is None:
            if gpu:
                spacy.prefer_gpu()  # type: ignore[attr-defined]  # documented, though not exported
            found = _loaded[key] = _load(language)
    return found


def _load(language: str) -> Language:
    import spacy

    try:
        return spacy.load(language)
    except Exception as error:
        if isinstance(error, OSError) and not spacy.util.is_package(language) and not Path(language).exists():
            raise InvalidFunction(
                f"spaCy model {language!r} is not installed: run `python -m spacy download {language}`, or pass a "
                "Language object that needs no download, such as spacy.blank('en')"
            ) from None
        raise InvalidFunction(f"spaCy model {language!r} cannot be loaded: {type(error).__name__}: {error}") from error


def _pipe_names(disable: object) -> tuple[str, ...]:
    """Return the names of pipes, sorted and distinct, as their order has no effect."""
    if disable is None:
        return ()
    if not isinstance(disable, Iterable) or isinstance(disable, (str, bytes)):
        raise InvalidFunction(f"disable must be a list of names of pipes, got {short_repr(disable)}")
    names = list(disable)
    if not all(isinstance(name, str) for name in names):
        raise InvalidFunction(f"disable must be a list of names of pipes, got {short_repr(names)}")
    return tuple(sorted(set(names)))


def _readable(text: str) -> str:
    """Return a text that spaCy can read, of the same length."""
    return _SURROGATES.sub("\ufffd", text)


def _content(component: Any) -> Any:
    """Return the rules and weights of a part of a pipeline; the part itself if it cannot be written."""
    if not callable(getattr(component, "to_bytes", None)):
        return component
    import srsly

    written = component.to_bytes(exclude=["vocab"])
    try:
        return _without_order(srsly.msgpack_loads(written))
    except ValueError:  # another format
        return written


def _without_order(value: Any) -> Any:
    """Return a value with lists of texts sorted: some were sets, and their order differs from process to process."""
    if isinstance(value, Mapping):
        return {key: _without_order(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return sorted(value) if all(isinstance(item, str) for item in value) else [*map(_without_order, value)]
    return value
