"""`make reference`: write docs/api/ from the docstrings of the public names.

A page a topic. Signatures, arguments, fields and examples are those of the sources; here it is only said
which name is on which page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "api"
NAME = "supabase_chunks"
_WIDTH = 88
# Bases that say nothing to a reader.
_INNER = ("Held", "_", "Model", "Generic", "Exception")

# What is on which page; of a module its public names.
PAGES: dict[str, tuple[str, list[str]]] = {
    "clients": ("Clients", ["ChunksClient", "AsyncChunksClient", "email.Email", "queue.Queue", "Retry"]),
    "jobs": (
        "Jobs",
        [
            *(
                "Job",
                "AsyncJob",
                "Progress",
                "WaitingFor",
                "JobStatus",
                "ChunkRecord",
                "ChunkStatus",
                "Attempt",
            ),
            *("Timeline", "timeline.Span", "Throughput", "Unreadable"),
        ],
    ),
    "workers": (
        "Workers",
        [
            *("Worker", "AsyncWorker", "Chunk", "AsyncChunk", "Result", "Continue", "RetryLater"),
            *("Throttled", "PermanentFailure", "Claim", "Completion", "Outcome", "Lease"),
        ],
    ),
    "installation": (
        "Kinds, accounts and health",
        ["Kind", "Limit", "EmailAccount", "EmailFolder", "Purged", "health"],
    ),
    "errors": ("Errors", ["errors"]),
    "testing": ("The local project", ["local.LocalStack", "pytest_plugin"]),
}
# The others are made by the package.
MADE_BY_USERS = {
    *("ChunksClient", "AsyncChunksClient", "Worker", "AsyncWorker", "Result", "Continue", "RetryLater"),
    *("Throttled", "Retry", "LocalStack"),
}
# Names in signatures that stand for a longer type.
ALIASES = [
    "_pages.Chunks",
    "_credentials.Token",
    "_credentials.AsyncToken",
    "progress.ProgressOption",
    "email.Tls",
    "_unreadable.Json",
    "states.JobStatusName",
    "states.ChunkStatusName",
    "_worker_setup.Handler",
    "_worker_setup.AsyncHandler",
]


def build() -> dict[str, str]:
    """Return the text of each page by its file's name."""
    package = griffe.load(NAME, search_paths=[ROOT])
    griffe.load("enum")  # so that an enum's members are told from its methods
    pages, index = {}, []
    for page, (title, names) in PAGES.items():
        parts = [part for name in names for part in _named(package, name)]
        about = [text for name in names if package[name].is_module for text in _documented(package[name])]
        pages[f"{page}.md"] = _join([f"# {title}", _MADE, *about, *(_object(part) for part in parts)])
        index.append((page, title, [part.name for part in parts]))
    pages["README.md"] = _index(package, index)
    return pages


_MADE = "<!-- Made from the docstrings by `make reference`: change them, and not this. -->"


def _index(package: Any, index: list[tuple[str, str, list[str]]]) -> str:
    listed = [
        f"- [{title}]({page}.md): " + ", ".join(f"[`{name}`]({page}.md#{name.lower()})" for name in names)
        for page, title, names in index
    ]
    aliases = [f"| `{path.rpartition('.')[2]}` | {_alias(package[path])} |" for path in ALIASES]
    return _join(
        [
            "# API reference",
            _MADE,
            "Every public name of `supabase_chunks`, with its arguments, what it raises, and an example.\n"
            "The tests run them, with a `ChunksClient` as `client` and a job of two chunks as `job`.\n"
            "The async classes have the methods of the others, to await.",
            "\n".join(listed),
            "## Types in signatures",
            "\n".join(["| name | stands for |", "|---|---|", *aliases]),
            "`P` is the type of payloads, `dict[str, Any]` unless a worker is told another; `M` is that of "
            "results.",
        ]
    )


def _alias(found: Any) -> str:
    value = str(found.value).strip("'")
    return _cell(found.docstring.value) if value.startswith("Annotated") else _code(value)


def _named(package: Any, name: str) -> Iterator[Any]:
    found = package[name]
    found = found.final_target if found.is_alias else found
    if not found.is_module:
        yield found
    elif found.exports:
        yield from (found[str(each)] for each in found.exports)
    else:
        yield from (each for each in found.functions.values() if "pytest.fixture" in _decorators(each))


def _object(found: Any) -> str:
    return _class(found) if found.is_class else _join([f"## {found.name}", *_documented(found)])


def _class(found: Any) -> str:
    title = found.name
    parts = [f"## {title}"]
    bases = [str(base) for base in found.bases if not str(base).startswith(_INNER)]
    if bases:
        parts.append(f"Base: {', '.join(f'`{base}`' for base in bases)}.")
    parts += _documented(found)
    is_error = title in found.module.exports if found.module.name == "errors" else False
    init = found.members.get("__init__")
    if title in MADE_BY_USERS and init is not None:
        parts.append(_fence("python", _signature(init, title)))
        # What a class is, its own docstring has said.
        parts += _documented(init)[1:]
    # An error has what its bases have, and they are on the same page.
    members = found.members if is_error else found.all_members
    shown = [each for each in members.values() if _is_shown(each)]
    within = range(init.lineno, init.endlineno) if init is not None and not is_error and init.lineno else ()
    parts += _fields([each for each in shown if each.is_attribute and each.lineno not in within])
    methods = [each for each in shown if each.is_function]
    if title.startswith("Async"):
        return _join([*parts, _fence("python", "\n".join(_signature(each, each.name) for each in methods))])
    for method in methods:
        parts += [
            f"### {title}.{method.name}",
            _fence("python", _signature(method, method.name)),
            *_documented(method),
        ]
    return _join(parts)


def _is_shown(member: Any) -> bool:
    target = member.final_target if member.is_alias else member
    is_own = target.canonical_path.startswith(f"{NAME}.")
    return is_own and not member.name.startswith("_") and member.name != "model_config"


def _fields(members: list[Any]) -> list[str]:
    """Return a table of properties and fields."""
    rows = []
    for member in members:
        said = next(iter(_documented(member)), "").replace("\n", " ")
        shown = member.value if member.annotation is None else member.annotation
        rows.append(f"| `{member.name}` | {_code(shown or '')} | {_cell(said)} |".replace("|  |", "| |"))
    is_enum = all(member.annotation is None for member in members[:2])
    return (
        ["\n".join([f"| name | {'value' if is_enum else 'type'} | |", "|---|---|---|", *rows])]
        if rows
        else []
    )


def _documented(found: Any) -> list[str]:
    """Return the sections of a docstring as Markdown."""
    if found.docstring is None:
        return []
    parts = []
    for section in found.docstring.parse("google", warnings=False):
        match section.kind.value:
            case "text":
                parts.append(_literal_blocks(section.value))
            case "parameters":
                parts.append(
                    "\n".join(f"- `{each.name}`: {_line(each.description)}" for each in section.value)
                )
            case "returns":
                parts.append(f"Returns: {_line(section.value[0].description)}")
            case "raises":
                raised = (f"- `{each.annotation}`: {_line(each.description)}" for each in section.value)
                parts.append("\n".join(["Raises:", "", *raised]))
            case "attributes":
                parts.append(
                    "\n".join(f"- `{each.name}`: {_line(each.description)}" for each in section.value)
                )
            case "admonition" | "examples":
                text = section.value.description if hasattr(section.value, "description") else section.value
                parts.append(_fence("pycon" if text.startswith(">>>") else "python", text))
            case other:
                raise ValueError(f"{found.path}: a section {other} is not known here")
    return parts


def _literal_blocks(text: str) -> str:
    before, mark, block = text.partition("::\n\n")
    if not mark:
        return text
    lines = block.split("\n")
    end = next((n for n, line in enumerate(lines) if line and not line.startswith("    ")), len(lines))
    inside = "\n".join(line[4:] for line in lines[:end]).strip("\n")
    return _join([before, _fence("text", inside), "\n".join(lines[end:])])


def _signature(function: Any, name: str) -> str:
    # Of a class the implementation's has all arguments with their defaults.
    overloads = [function] if function.name == "__init__" else function.overloads or [function]
    prefix = "await " if "async" in function.labels else ""
    if str(function.returns).startswith("AsyncIterator"):
        prefix = "async for … in "
    return "\n".join(_one_signature(each, name, prefix) for each in overloads)


def _one_signature(function: Any, name: str, prefix: str) -> str:
    shown: list[str] = []
    is_keyword_only = False
    for parameter in function.parameters:
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is griffe.ParameterKind.keyword_only and not is_keyword_only:
            is_keyword_only = True
            shown.append("*")
        text = parameter.name if parameter.annotation is None else f"{parameter.name}: {parameter.annotation}"
        default = "" if parameter.default is None else f" = {parameter.default}"
        shown.append(f"{text}{default}")
    returns = "" if name[:1].isupper() or function.returns is None else f" -> {function.returns}"
    short = f"{prefix}{name}({', '.join(shown)}){returns}"
    if len(short) <= _WIDTH:
        return short
    return "\n".join(
        [f"{prefix}{name}(", *(f"    {each}," if each != "*" else "    *," for each in shown), f"){returns}"]
    )


def _decorators(function: Any) -> str:
    return " ".join(str(each.value) for each in function.decorators)


def _code(value: object) -> str:
    return f"`{_cell(str(value).strip(chr(34)))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _line(text: str) -> str:
    return " ".join(text.split())


def _fence(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _join(parts: list[str]) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def main() -> int:
    """Write them."""
    FOLDER.mkdir(exist_ok=True)
    pages = build()
    for path in FOLDER.glob("*.md"):
        if path.name not in pages:
            path.unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    print(f"{FOLDER.relative_to(ROOT)}: {len(pages)} pages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
