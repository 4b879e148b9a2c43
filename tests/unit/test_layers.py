"""Imports point one way: every file imports from rooms below its own only, for types and inside functions too."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import supabase_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(supabase_chunks.__file__).parent
NAME = PACKAGE.name

# From the bottom to the top; a folder stands for all of its files. Within a line there may be arrows, no circles.
LAYERS = [
    {"states", "errors", "_bounds", "_secrets", "_hints", "_nearest", "_loop", "_typed"},
    {"_show"},
    {"models", "health", "_unreadable"},
    {"_encode", "_flow", "_credentials", "_roles", "_network", "assets"},
    {"_rpc", "_driver", "_frames", "_pages", "_pool"},
    {"_http", "_project_client", "_answers", "operations", "reads"},
    {"progress", "timeline", "throughput", "_trigger", "_watch", "_wait"},
    {"email", "queue", "jobs"},
    {"client"},
    {
        "_claim_life",
        "_pace",
        "_saved",
        "chunk",
        "_backoff",
        "_report",
        "_outbox",
        "_worker_core",
        "_worker_setup",
        "_heartbeat",
    },
    {"worker", "async_worker"},
    {"__init__"},
    {"local", "install", "doctor"},
    {"demo", "pytest_plugin"},
    {"commands"},
    {"cli", "__main__"},
]
# Errors carry what was seen of a job; their file has the models' names for its types alone.
FOR_TYPES_ONLY = {("errors", "models")}


def module_of(path: Path) -> str:
    """Return a file's dotted name within the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in PACKAGE.rglob("*.py") if "_bundle" not in path.parts}


def imported(path: Path) -> Iterator[str]:
    """Give the package's own modules that a file imports, wherever in it."""
    folder = [NAME, *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # A name is a module of its own, or one that the module before it has.
            names = [
                name if name.removeprefix(f"{NAME}.") in FILES else origin
                for name in (f"{origin}.{alias.name}" for alias in node.names)
            ]
        else:
            continue
        for name in names:
            if name == NAME or name.startswith(f"{NAME}."):
                yield name.removeprefix(NAME).removeprefix(".") or "__init__"


GRAPH = {name: sorted(set(imported(path)) - {name}) for name, path in FILES.items()}


def layer_of(module: str) -> int:
    """Return how high a module's room is."""
    room = module.partition(".")[0]
    (found,) = (height for height, rooms in enumerate(LAYERS) if room in rooms)
    return found


@pytest.mark.parametrize("module", sorted(GRAPH))
def test_a_file_imports_from_no_room_above_its_own(module: str) -> None:
    upwards = [
        other
        for other in GRAPH[module]
        if layer_of(other) > layer_of(module) and (module, other) not in FOR_TYPES_ONLY
    ]
    assert upwards == []


def test_no_files_import_each_other_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in GRAPH[module]:
                if (module, other) not in FOR_TYPES_ONLY:
                    visit(other, (*path, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


def test_each_room_is_on_the_list_once_and_nothing_is_on_it_that_is_not_there() -> None:
    listed = [room for rooms in LAYERS for room in rooms]
    assert sorted(listed) == sorted({module.partition(".")[0] for module in FILES})


def test_what_is_for_types_only_is_imported_for_types_only() -> None:
    for module, other in FOR_TYPES_ONLY:
        tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
        blocks = [node for node in tree.body if isinstance(node, ast.If)]
        inside = {id(node) for block in blocks for node in ast.walk(block)}
        arrows = [
            node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == other
        ]
        assert arrows
        assert all(id(node) in inside for node in arrows)
