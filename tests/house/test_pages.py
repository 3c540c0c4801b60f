"""What the pages list is what the code has: rooms, endpoints, settings, messages, names."""

from __future__ import annotations

import ast
import asyncio
import importlib
import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import attrs
import pytest

from meshlib import MemoryNetwork, MeshConfig, MeshRuntime, SnapshotFile
from meshlib.aio import BridgedTransport, Regions
from meshlib.gossip.messages.kinds import Message
from meshlib.routing import CacheAwareConfig
from meshlib_server.app import http_routes
from meshlib_server.commands.cli import serve
from meshlib_server.config import MeshSettings, settings_paths
from meshlib_server.http.gate import Gate, HttpSettings
from meshlib_server.metrics import Sources, read_families
from meshlib_server.metrics.names import PREFIX, Kind
from meshlib_server.metrics.readings import Family
from meshlib_server.resources import operations_of

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
LINKING = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]


def read(name: str) -> str:
    return (DOCS / name).read_text()


def rows(page: str, *, columns: int) -> list[list[str]]:
    """Return the cells of each table row of a page that has so many columns."""
    found = []
    for line in read(page).splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == columns and set(cells[0]) - set("-: "):
            found.append(cells)
    return found


def codes(cell: str) -> list[str]:
    """Return what stands in code marks."""
    return re.findall(r"`([^`]*)`", cell)


# Architecture


def rooms() -> list[str]:
    """Return every room: folders of both packages, and the modules that stand by themselves."""
    found = []
    for package in ("meshlib", "meshlib_server"):
        for path in sorted((ROOT / package).rglob("*.py")):
            folder = path.relative_to(ROOT).parent
            if path.name == "__init__.py" and folder != Path("meshlib"):
                found.append(f"{folder}/")
            elif len(folder.parts) == 1 and path.name != "__main__.py":
                found.append(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("room", rooms())
def test_the_architecture_names_every_room(room: str) -> None:
    """A newcomer who reads that page has heard of each."""
    assert f"`{room}`" in read("architecture.md")


def test_the_architecture_puts_each_room_on_its_floor() -> None:
    """As the test of the imports has them."""
    source = ast.parse((ROOT / "tests/house/test_import_directions.py").read_text())
    floors = next(
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    )
    drawn = {
        Path(codes(cells[1])[0]).stem: int(cells[0])
        for cells in rows("architecture.md", columns=3)
        if cells[0].isdigit() and int(cells[0]) <= len(floors)
    }

    assert drawn.items() <= {
        (room, number) for number, floor in enumerate(floors, 1) for room in floor
    }
    assert len(drawn) > 15


def test_the_architecture_names_no_room_that_is_not_there() -> None:
    """Whatever looks like a path of the packages is one."""
    named = re.findall(r"`((?:meshlib|meshlib_server|tests)/[\w/.]*)`", read("architecture.md"))

    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


def members_of_classes() -> dict[str, set[str]]:
    """Return what each class of both packages has, its bases of this project included."""
    own: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for package in ("meshlib", "meshlib_server"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef):
                    named = own.setdefault(node.name, set())
                    named |= {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                    named |= {
                        item.name for item in node.body if isinstance(item, ast.AsyncFunctionDef)
                    }
                    named |= {
                        item.target.id
                        for item in node.body
                        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                    }
                    bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]

    def all_of(name: str) -> set[str]:
        return own.get(name, set()).union(*(all_of(base) for base in bases.get(name, [])))

    return {name: all_of(name) for name in own}


def test_functions_named_on_the_pages_exist() -> None:
    """`Class.method` on the pages that walk through the code is one in the code."""
    pages = "".join(read(name) for name in ("architecture.md", "replication.md", "protocol.md"))
    named = {
        (owner, member)
        for owner, member in re.findall(r"`([A-Z]\w+)\.(\w+)(?:\(\))?`", pages)
        if not owner.isupper()  # a file such as README.md
    }
    known = members_of_classes()

    assert len(named) > 40
    assert {pair for pair in named if pair[1] not in known.get(pair[0], ())} == set()


# HTTP


def test_the_http_page_lists_every_endpoint_and_no_other() -> None:
    """Method by method, as the routes have them."""
    routes = {
        f"{method.upper()} {path}"
        for path, methods in operations_of(http_routes()).items()
        for method in methods
        if not path.startswith("/ha/")
    }
    listed = [code for cells in rows("http.md", columns=2) for code in codes(cells[0])]

    assert sorted(routes) == sorted(code for code in listed if " /" in code)


def test_every_endpoint_has_a_call_on_its_page_or_is_told_of_there() -> None:
    """Each path of the table is met again below it."""
    page = read("http.md")
    below = page[page.index("## Errors") :]
    untold = []
    for cells in rows("http.md", columns=2):
        for code in codes(cells[0]):
            method, _, path = code.partition(" ")
            if not path.startswith("/mesh/"):
                continue
            pattern = re.escape(path).replace(r"\{", "{")
            pattern = re.sub(r"\{\w+\\?\}", r"[^\\s`]+", pattern)
            has_call = re.search(rf"localhost:8000{pattern}(?:\s|$)", below)
            has_word = f"`{method}`" in below or f"`{code}`" in below
            if not (has_call or has_word):
                untold.append(code)

    assert untold == []


# Operations


def test_the_operations_page_lists_every_metric(tmp_path: Path) -> None:
    """With its labels and what it says of itself to Prometheus, in the order of a scrape."""

    async def run() -> list[Family]:
        config = MeshConfig(name="a")
        inside = MemoryNetwork().transport("a:1")
        transport = BridgedTransport(inside, region="one", regions=Regions({"one": ["a"]}))
        async with MeshRuntime(config, transport=transport) as mesh:
            await mesh.wait_ready(5)
            gate = Gate(HttpSettings(), connections_max=1)
            snapshots = SnapshotFile(tmp_path / "state.db")
            return read_families(mesh, Sources(gate=gate, snapshots=snapshots))

    there = [
        (
            PREFIX + family.name + ("_total" if family.kind is Kind.COUNTER else ""),
            list(family.labels),
            family.text.rstrip("."),
        )
        for family in asyncio.run(run())
    ]
    listed = [
        (codes(name)[0], codes(labels), text[0].upper() + text[1:])
        for name, labels, text in rows("operations.md", columns=3)
        if codes(name) and codes(name)[0].startswith(PREFIX)
    ]

    assert there == listed


# Configuration


def default_of(path: str) -> Any:
    value: Any = MeshSettings(self_name="")
    for part in path.split(".")[1:]:
        value = getattr(value, part)
    return value


def shown(value: Any) -> str | None:
    """Return how a default is written on the page; None for none."""
    if isinstance(value, bool):
        return str(value).lower()
    return None if value in (None, "", ()) else str(value)


def test_the_configuration_page_lists_every_setting() -> None:
    """With its variable, its default and its flag, each of which is that of the code."""
    listed = {}
    for cells in rows("configuration.md", columns=3):
        names = codes(cells[0])
        if names and names[0].startswith("mesh."):
            path, variable, *flags = names
            assert variable == "MESH_" + path.removeprefix("mesh.").replace(".", "_").upper()
            listed[path] = (next(iter(codes(cells[1])), None), flags)
    flags_of_serve = {option for parameter in serve.params for option in parameter.opts}
    in_table = {flag for _, flags in listed.values() for flag in flags}

    assert {path: shown(default_of(path)) for path in settings_paths()} == {
        path: default for path, (default, _) in listed.items()
    }
    assert flags_of_serve - in_table == {"--config", "--insecure"}
    assert in_table <= flags_of_serve


def test_the_configuration_page_lists_what_a_cache_aware_policy_takes() -> None:
    """Each with its default."""
    known = attrs.fields_dict(CacheAwareConfig)
    listed = {
        codes(cells[0])[0]: codes(cells[1])[0]
        for cells in rows("configuration.md", columns=3)
        if codes(cells[0]) and codes(cells[0])[0] in known
    }

    assert {name: str(field.default) for name, field in known.items()} == listed


# Protocol


def test_the_protocol_page_lists_every_message() -> None:
    """By its code, with its fields in their order."""
    listed = [
        (int(cells[0]), *codes(cells[1]), ", ".join(codes(cells[2])))
        for cells in rows("protocol.md", columns=4)
        if cells[0].isdigit()
    ]

    assert listed == sorted(
        (kind.code, kind.__name__, ", ".join(attrs.fields_dict(kind))) for kind in get_args(Message)
    )


# Reference


def test_the_reference_has_every_room_of_the_library() -> None:
    """By its door, which brings all that it exports, but for what has the name of a module."""
    reference = "".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
    directives = set(re.findall(r"^::: ([\w.]+)$", reference, re.MULTILINE))
    doors = {
        f"meshlib.{path.stem}": path
        for path in sorted((ROOT / "meshlib").iterdir())
        if (path.suffix == ".py" and path.stem != "__init__") or (path / "__init__.py").exists()
    }
    hidden = {
        name
        for door, path in doors.items()
        for name in importlib.import_module(door).__all__
        if (path / name).is_dir() or (path / f"{name}.py").exists()
    }

    assert doors.keys() - directives == set()
    assert hidden - {name.rpartition(".")[2] for name in directives - doors.keys()} == set()


# All pages


def test_the_readme_is_short() -> None:
    """Under 220 lines: the rest is on pages of its own."""
    assert len((ROOT / "README.md").read_text().splitlines()) < 220


def test_the_pages_name_every_example_and_benchmark() -> None:
    """None is left out, and none is named that does not exist."""
    listed = {code for cells in rows("library.md", columns=2) for code in codes(cells[0])}
    measured = {code for cells in rows("benchmarks.md", columns=2) for code in codes(cells[0])}

    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        name for name in listed if name.endswith(".py")
    }
    assert {path.name for path in (ROOT / "benchmarks").glob("bench_*.py")} == measured


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", DOCS / "testing-kit.md"], ids=lambda p: p.name
)
def test_the_number_of_mutants_is_that_of_the_list(page: Path) -> None:
    """As many as `caught_by.txt` has rows."""
    lines = (ROOT / "tests" / "laws" / "caught_by.txt").read_text().splitlines()
    count = sum(not line.startswith("#") for line in lines)

    assert [str(count)] == re.findall(r"(\d+)\s+mutants", page.read_text())


@pytest.mark.parametrize("page", [*LINKING[:2], *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name)
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    """Whole paths, and ends of paths: `vector.py`, `entries/log.py`."""
    here = {"meshlib", "meshlib_server", "tests", "examples", "benchmarks", "tools"}
    files = [f"/{path.relative_to(ROOT)}" for name in here for path in (ROOT / name).rglob("*.py")]
    files += [f"/{title}" for title in re.findall(r'title="([\w.]+)"', page.read_text())]
    named = re.findall(r"`([\w/]+\.py)`", page.read_text())

    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in headings
    }


@pytest.mark.parametrize("page", LINKING, ids=lambda path: path.name)
def test_a_link_of_a_page_beside_the_docs_leads_somewhere(page: Path) -> None:
    """To a file that is there and a heading in it; `make docs` looks at those inside."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)

    assert broken == []


# The site


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """Return what `make docs` runs beside the generator."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "tools" / "docs_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.html", '<script src="https://cdn.example/x.js"></script>'),
        ("index.html", '<link rel="stylesheet" href="//fonts.example/css">'),
        ("index.html", "<img alt=x src=http://elsewhere.example/x.png>"),
        ("style.css", '@import "https://fonts.example/css";'),
        ("style.css", "a { background: url(https://elsewhere.example/x.png) }"),
    ],
)
def test_a_site_that_fetches_from_elsewhere_is_found(
    hooks: ModuleType, tmp_path: Path, name: str, content: str
) -> None:
    """Scripts, styles, fonts and pictures of other hosts."""
    (tmp_path / name).write_text(content)

    assert len(hooks.fetched_from_elsewhere(tmp_path)) == 1


def test_a_site_may_link_to_elsewhere(hooks: ModuleType, tmp_path: Path) -> None:
    """What a reader may follow is not fetched."""
    (tmp_path / "index.html").write_text('<a href="https://example.org">x</a><img src="x.png">')

    assert hooks.fetched_from_elsewhere(tmp_path) == []
