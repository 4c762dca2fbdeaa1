"""The public surface: HTTP, metrics, command line, settings, and the Python names of sfs and models.

    python tests/surface.py            compare this checkout with fixtures/surface.json
    python tests/surface.py --write    write that file: only when the surface is meant to change

Texts are left out: descriptions, summaries, titles, examples and help may change. So are names that no client
sees: schemas are compared by content, settings by the result of reading sample values.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from earlier_version import LABELS, RECORDS, Ask, serving_process, unpack, wait_for_jobs

COMPACT = (",", ":")
FILE = Path(__file__).parent / "fixtures/surface.json"
PACKAGES = ("sfs", "models")
EXTRAS = ("sfs.dask", "sfs.spark")
TEXTS = {"description", "summary", "title", "example", "examples", "operationId", "externalDocs"}
PROBES = (
    "0", "1", "7", "70000", "-1", "0.5", "1.5", "1e400", "true", "no", "some_word", "two words", "[]", "[3, 4]",
    "[a, b]", "{a: text}", "{a: 1}", "", "127.0.0.1", "table", "sms", "erm", "slice_aware", "power", "kill", "all",
    "none",
)  # fmt: skip
VARIADIC = {inspect.Parameter.VAR_POSITIONAL: "args", inspect.Parameter.VAR_KEYWORD: "kwargs"}
REQUIRED_SETTINGS = "data: rows.csv\nlabel: kind\nfeatures: {text: text}\n"

Surface = dict[str, dict[str, Any]]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    from service.__main__ import build_parser as build

    return build()


def load_settings(file: Path, environ: Mapping[str, str]) -> Any:
    """Return the settings of a project, or raise a ServiceError."""
    from service.settings.loading import load

    return load(file, environ)


def service_error() -> type[Exception]:
    """Return the class of errors that a wrong setting raises."""
    from service.errors import ServiceError

    return ServiceError


def surface() -> Surface:
    """Collect everything; one service is started for the HTTP API and the metrics."""
    with tempfile.TemporaryDirectory() as folder, serving_process(unpack(Path(folder))) as ask:
        return {
            **http_and_metrics(ask),
            "commands": dict(commands(build_parser())),
            "settings": settings(Path(folder)),
            "python": dict(python_names()),
        }


def http_and_metrics(ask: Ask) -> Surface:
    """Return the operations of the API, and the families of ``/metrics`` after traffic of every kind."""
    document = ask("GET", "/openapi.json")[1]
    operations = {
        f"{method.upper()} {path}": without_texts(document, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    wait_for_jobs(ask)
    ids = [f"row-{n}" for n in range(len(RECORDS))]
    ask("POST", "/v1/predict", {"instances": RECORDS, "ids": ids})
    ask("POST", "/v1/labels", {"labels": [*LABELS, *({"id": id_, "label": "praise"} for id_ in ids)]})
    return {"http": operations, "metrics": metric_families(ask("GET", "/metrics")[1])}


def without_texts(document: Any, part: Any, inside: tuple[str, ...] = ()) -> Any:
    """Return a part of an OpenAPI document with its references resolved and its texts left out."""
    if isinstance(part, list):
        return [without_texts(document, each, inside) for each in part]
    if not isinstance(part, dict):
        return part
    if target := part.get("$ref"):
        if target in inside:
            return {"$ref": "itself"}
        found = document
        for name in target.removeprefix("#/").split("/"):
            found = found[name]
        return without_texts(document, found, (*inside, target))
    return {
        key: {name: without_texts(document, each, inside) for name, each in value.items()}
        if key == "properties"  # its keys are fields, which may be called title or description
        else without_texts(document, value, inside)
        for key, value in part.items()
        if key not in TEXTS
    }


def metric_families(text: str) -> dict[str, str]:
    """Return type and label names of every family of an exposition."""
    types = dict(re.findall(r"^# TYPE (slicewatch_\w+) (\w+)", text, re.MULTILINE))
    labels: dict[str, set[str]] = defaultdict(set)
    for name, inner in re.findall(r"^(\w+)\{(.*)\} \S+", text, re.MULTILINE):
        family = name if name in types else re.sub(r"_(bucket|sum|count|created)$", "", name)
        labels[family] |= set(re.findall(r'(\w+)="', inner))
    return {name: f"{kind} {{{', '.join(sorted(labels[name]))}}}" for name, kind in types.items()}


def commands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Any]]:
    """Yield every command with its arguments."""
    arguments = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            arguments["(subcommand)"] = {"required": action.required, "choices": [*action.choices]}
            for child in action.choices.values():
                yield from commands(child)
        else:
            kind = type(action)
            facts = {
                "action": kind.__name__ if kind.__module__ == "argparse" else "its own",
                "choices": action.choices and [*map(str, action.choices)],
                "default": plain(action.default),
                "nargs": action.nargs,
                "required": action.required,
            }
            name = " ".join(action.option_strings) or action.dest
            arguments[name] = {key: value for key, value in facts.items() if value is not None}
    yield parser.prog, arguments


def settings(folder: Path) -> dict[str, Any]:
    """Return the default of every setting, and the result of reading each sample value."""
    file = folder / "slicewatch.yaml"
    file.write_text(REQUIRED_SETTINGS)
    defaults = dict(leaves(load_settings(file, {})))
    out = {}
    for key, default in defaults.items():
        variable = "SLICEWATCH_" + key.upper().replace(".", "_")
        read = {probe: setting(file, key, {variable: probe}) for probe in PROBES}
        if {json.dumps(value) for value in read.values()} != {json.dumps(relative(default, folder))}:
            out[key] = {
                "default": relative(default, folder),
                "reads": {probe: value for probe, value in read.items() if value != "refused"},
            }
    return out


def setting(file: Path, key: str, environ: Mapping[str, str]) -> Any:
    """Return a setting as it is read with some variables, or ``refused``."""
    try:
        return relative(dict(leaves(load_settings(file, environ))).get(key), file.parent)
    except service_error():
        return "refused"


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of nested dataclasses or pydantic models, by dotted name."""
    names: Sequence[str] = ()
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
    elif hasattr(type(value), "model_fields"):
        names = [*type(value).model_fields]
    for name in names:
        yield from leaves(getattr(value, name), f"{key}.{name}" if key else name)
    if not names:
        yield key, value


def relative(value: Any, folder: Path) -> Any:
    """Return a value as JSON holds it, with paths relative to a folder."""
    if isinstance(value, list | tuple):
        return [relative(each, folder) for each in value]
    if isinstance(value, Path | str):
        return str(value).removeprefix(f"{folder}/")
    return plain(dict(value)) if isinstance(value, Mapping) else plain(value)


def python_names() -> Iterator[tuple[str, Any]]:
    """Yield the public names of the packages with their signatures, and the public members of classes."""
    for package in (*PACKAGES, *EXTRAS):
        module = importlib.import_module(package)
        for name in sorted(module.__all__):
            value = getattr(module, name)
            yield f"{package}.{name}", signature(value)
            if inspect.isclass(value):
                for member in sorted(own_members(value)):
                    found = inspect.getattr_static(value, member)
                    function = getattr(found, "__func__", found)
                    kind = type(found).__name__ if function is not found else ""
                    is_function = inspect.isfunction(function)
                    shape = f"{kind}{signature(function)}" if is_function else "attribute"
                    yield f"{package}.{name}.{member}", shape


def own_members(cls: type) -> set[str]:
    """Return the public members that a class has from our packages: methods, properties and fields."""
    ours = [each for each in cls.__mro__ if each.__module__.partition(".")[0] in PACKAGES]
    names = {name for each in ours for name in (*vars(each), *vars(each).get("__annotations__", {}))}
    return {name for name in names if not name.startswith("_") and hasattr(cls, name)}


def signature(value: Callable[..., Any]) -> str:
    """Return names, kinds and defaults of the parameters, without annotations."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return "none"
    bare = [
        parameter.replace(
            name=VARIADIC.get(parameter.kind, parameter.name),
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else Shown(parameter.default),
        )
        for parameter in found.parameters.values()
    ]
    return str(inspect.Signature(bare))


class Shown:
    """A default value, shown without the place of its object in memory or of its class in a package."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        if callable(self.value):
            return str(getattr(self.value, "__qualname__", type(self.value).__name__))
        return re.sub(r" at 0x[0-9a-f]+", "", repr(self.value))


def plain(value: Any) -> Any:
    """Return a value that JSON holds, or its text."""
    if isinstance(value, Path):
        return str(value)
    return value if isinstance(value, bool | int | float | str | dict | None) else repr(Shown(value))


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Yield removed (-), added (+) and changed (!) entries, down to the smallest value."""
    for part in sorted(expected.keys() | found.keys()):
        yield from _compare(expected.get(part, {}), found.get(part, {}), part)


def _compare(expected: Any, found: Any, where: str) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            place = f"{where} > {key}"
            if key not in found:
                yield f"- {place}: {shown(expected[key])}"
            elif key not in expected:
                yield f"+ {place}: {shown(found[key])}"
            else:
                yield from _compare(expected[key], found[key], place)
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for n, pair in enumerate(zip(expected, found, strict=True)):
            yield from _compare(*pair, f"{where} > {n}")
    elif expected != found or type(expected) is not type(found):
        yield f"! {where}: {shown(found)}, not {shown(expected)}"


def shown(value: Any) -> str:
    """Return a value as short JSON."""
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 200 else f"{text[:200]}..."


def as_text(collected: Surface) -> str:
    """Return the surface as JSON, sorted, a line for every operation, family, command, setting and name."""
    parts = []
    for part, entries in sorted(collected.items()):
        lines = (
            f"  {json.dumps(key)}: {json.dumps(entries[key], sort_keys=True, separators=COMPACT)}"
            for key in sorted(entries)
        )
        parts.append(f" {json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    """Compare, or write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write fixtures/surface.json")
    asked = parser.parse_args()
    text = as_text(surface())
    if asked.write:
        FILE.write_text(text)
        return 0
    found = [*differences(json.loads(FILE.read_text()), json.loads(text))]
    print("\n".join(found) or "the surface equals fixtures/surface.json")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
