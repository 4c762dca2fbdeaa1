"""Measure the house: lines, helpers, bags of callables, names, docstrings, walks, and private access in tests.

python tests/house.py                       the table, with aims
python tests/house.py --list once-called    the findings of one row
python tests/house.py --path DIR --json     another checkout, as JSON
"""

import argparse
import ast
import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PRODUCT = ("sfs", "models", "service")
SHORT_FILE_LINES = 100
SHORT_BODY_LINES = 4
CALLABLES_OF_A_VALUE = 3
LIVE_OBJECTS = {"Store", "Writer"}  # a value without methods that carries these stands in for an object
BANNED_WORDS = re.compile(r"\b(what|whoever|nobody|somebody|so many|anew|of late)\b", re.IGNORECASE)
PUBLIC_BY_CUSTOM = {"_replace", "_fields", "_asdict", "_make", "_actions", "_exit", "_mapping", "_name_"}
ARCHITECTURE = Path("docs/architecture.md")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One parsed source file."""

    name: str  # path below the root, with slashes
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Number of lines, blank ones included."""
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Helper:
    """A private function or method."""

    place: str
    name: str
    uses: int
    body_lines: int

    def __str__(self) -> str:
        return f"{self.place} {self.name}: {self.uses} uses, {self.body_lines} body lines"


@dataclass(frozen=True)
class Row:
    """One measured figure, with its aim and its findings."""

    key: str
    text: str
    figure: int | None
    aim: int | None = None
    of: int | None = None
    found: Sequence[str] = field(default=(), repr=False)

    @property
    def met(self) -> bool:
        """Whether the figure is at most the aim; true where it has none or is not measured."""
        return self.aim is None or self.figure is None or self.figure <= self.aim


def read_modules(root: Path, folders: Sequence[str]) -> list[Module]:
    """Parse every Python file below the folders of a checkout."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    texts = {path: path.read_text(encoding="utf-8") for path in paths if "__pycache__" not in path.parts}
    return [Module(path.relative_to(root).as_posix(), text, ast.parse(text)) for path, text in texts.items()]


def private_helpers(module: Module) -> list[Helper]:
    """Return the private functions and methods of a module, with their uses outside of their own bodies."""
    uses = Counter(used_names(module.tree))
    out = []
    for node in ast.walk(module.tree):
        if isinstance(node, Function) and is_private(node.name):
            own = Counter(used_names(node))[node.name]
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            out.append(Helper(f"{module.name}:{node.lineno}", node.name, uses[node.name] - own, lines))
    return out


def used_names(tree: ast.AST) -> Iterator[str]:
    """Yield every name and attribute that is read in a tree, as often as it is."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def is_private(name: str) -> bool:
    """Whether a name begins with one underscore and is more than that."""
    return name.startswith("_") and name != "_" and not name.startswith("__")


@dataclass(frozen=True)
class ValueClass:
    """A dataclass or NamedTuple, with the fields that make a value into more than a value."""

    place: str
    fields: int
    callables: int
    live: int
    methods: int

    @property
    def is_bag(self) -> bool:
        """Whether it stands in for an object: it has no methods, and carries live objects or many callables."""
        return not self.methods and (self.live > 0 or self.callables > CALLABLES_OF_A_VALUE)

    def __str__(self) -> str:
        return f"{self.place}: {self.fields} fields, {self.callables} callables, {self.live} of store or writer"


def value_classes(module: Module) -> Iterator[ValueClass]:
    """Yield the dataclasses and NamedTuples of a module."""
    aliases = callable_aliases(module.tree)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and is_value_class(node):
            fields = [part.annotation for part in node.body if isinstance(part, ast.AnnAssign)]
            yield ValueClass(
                f"{module.name}:{node.lineno} {node.name}",
                len(fields),
                callables=sum(is_callable(part, aliases) for part in fields),
                live=sum(bool(LIVE_OBJECTS & set(used_names(part))) for part in fields),
                methods=sum(isinstance(part, Function) and part.name[0] != "_" for part in node.body),
            )


def is_value_class(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass or a NamedTuple."""
    marks = [name for part in (*node.decorator_list, *node.bases) for name in used_names(part)]
    return "dataclass" in marks or "NamedTuple" in marks


def callable_aliases(tree: ast.Module) -> set[str]:
    """Return the names that a module gives to Callable types."""
    out = {"Callable", "Clock"}
    for node in ast.walk(tree):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        named = isinstance(target, ast.Name) and isinstance(value, ast.Subscript)
        if isinstance(node, ast.Assign | ast.AnnAssign) and named and is_callable(value, out):
            out.add(target.id)
    return out


def is_callable(annotation: ast.expr, aliases: set[str]) -> bool:
    """Whether an annotation is a Callable, an alias of one, or one of these or None."""
    if isinstance(annotation, ast.BinOp):
        return is_callable(annotation.left, aliases) or is_callable(annotation.right, aliases)
    head = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    return isinstance(head, ast.Name) and head.id in aliases


def repeated_classes(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Return the public classes whose name stands more than once, with their places."""
    places = defaultdict(list)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(f"{module.name}:{node.lineno}")
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def docstring_lines(module: Module) -> Iterator[tuple[str, str]]:
    """Yield place and first line of every docstring of a module."""
    for node in ast.walk(module.tree):
        if isinstance(node, Function | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
            yield f"{module.name}:{getattr(node, 'lineno', 1)}", text.splitlines()[0]


def walks(root: Path) -> dict[str, list[str] | None]:
    """Return the files that each marked walk of the architecture page names; None where there is no such walk."""
    page = root / ARCHITECTURE
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    out: dict[str, list[str] | None] = {}
    for walk in ("request", "drift"):
        part = re.search(rf"<!-- walk: {walk} -->(.*?)<!-- end -->", text, re.DOTALL)
        out[walk] = list(dict.fromkeys(re.findall(r"[\w/]+\.py", part[1]))) if part else None
    return out


def foreign_privates(module: Module) -> list[str]:
    """Return the uses of private attributes of objects other than self, cls and argparse.

    The fixtures' makers run on earlier releases, which had no public way.
    """
    if module.name.startswith("tests/fixtures/"):
        return []
    return [
        f"{module.name}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and node.attr not in PUBLIC_BY_CUSTOM
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "argparse"))
    ]


def measure(root: Path) -> list[Row]:
    """Measure a checkout."""
    product, tests = read_modules(root, PRODUCT), read_modules(root, ("tests",))
    helpers = [helper for module in product for helper in private_helpers(module)]
    once = [helper for helper in helpers if helper.uses == 1]
    small = [str(helper) for helper in once if helper.body_lines <= SHORT_BODY_LINES]
    repeated = [f"{name}: {', '.join(places)}" for name, places in repeated_classes(product).items()]
    docstrings = [pair for module in product for pair in docstring_lines(module)]
    banned = [f"{place} {line}" for place, line in docstrings if BANNED_WORDS.search(line)]
    by_size = sorted(product, key=lambda module: -module.lines)
    sizes = [f"{module.name}: {module.lines}" for module in by_size]
    short = [f"{module.name}: {module.lines}" for module in by_size if module.lines < SHORT_FILE_LINES]
    conftests = [module for module in tests if module.name.endswith("conftest.py")]
    private = [use for module in tests for use in foreign_privates(module)]
    values = [value for module in product for value in value_classes(module)]
    carriers = [str(value) for value in values if value.is_bag]
    callables = [str(value) for value in values if value.callables >= 2]
    on_walks = walks(root)
    return [
        # docs/decisions/0017-size.md
        Row("lines", "product lines", sum(module.lines for module in product), 62_450, found=by_room(product)),
        Row("files", "product files", len(product), 313, found=sizes),
        Row("short-files", f"files under {SHORT_FILE_LINES} lines", len(short), of=len(product), found=short),
        Row("once-called", "private helpers used once", len(once), of=len(helpers), found=[*map(str, once)]),
        Row("small", f"... of <= {SHORT_BODY_LINES} body lines", len(small), of=len(once), found=small),
        Row("bags", "bags of callables or live objects", len(carriers), 0, found=carriers),
        Row("callables", "value classes with 2 callables or more", len(callables), found=callables),
        Row("names", "class names that stand more than once", len(repeated), 0, found=repeated),
        Row("docstrings", "docstring first lines with banned words", len(banned), 0, len(docstrings), banned),
        *(
            Row(f"{walk}-walk", f"files on the {walk} path", files and len(files), aim, found=files or ())
            for (walk, files), aim in zip(on_walks.items(), (12, 20), strict=True)
        ),
        Row(
            "conftest",
            "lines of conftest.py",
            sum(module.lines for module in conftests),
            found=[f"{module.name}: {module.lines}" for module in conftests],
        ),
        Row("private-in-tests", "private attributes used in tests", len(private), 0, found=private),
    ]


def by_room(modules: Sequence[Module]) -> list[str]:
    """Return lines and files per package, and per room of the service."""
    lines: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for module in modules:
        parts = module.name.split("/")[:-1]
        for room in {"/".join(parts[:1]), "/".join(parts[:2])}:
            lines[room] += module.lines
            files[room] += 1
    return [f"{room}: {lines[room]} lines, {files[room]} files" for room in sorted(lines)]


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    out = []
    for row in rows:
        figure = "-" if row.figure is None else f"{row.figure:,}"
        of = "" if row.of is None else f"of {row.of:,}"
        aim = "" if row.aim is None else f"<= {row.aim:,}"
        out.append(f"{row.key:17}{row.text:42}{figure:>8} {of:9}{aim:>10} {'' if row.met else 'above'}".rstrip())
    return "\n".join(out)


def as_json(rows: Sequence[Row]) -> Mapping[str, Mapping[str, object]]:
    """Return the rows as plain values."""
    return {row.key: {"figure": row.figure, "of": row.of, "aim": row.aim, "met": row.met} for row in rows}


def main(argv: Sequence[str]) -> int:
    """Print the table, one row's findings, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=Path(__file__).parent.parent, help="checkout to measure")
    parser.add_argument("--list", metavar="ROW", help="print the findings of this row, one a line")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(argv)
    rows = {row.key: row for row in measure(asked.path)}
    if asked.list and asked.list not in rows:
        parser.error(f"--list {asked.list}: not one of {', '.join(rows)}")
    if asked.list:
        print("\n".join(rows[asked.list].found))
    elif asked.json:
        print(json.dumps(as_json([*rows.values()]), indent=1))
    else:
        print(table([*rows.values()]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
