"""What `create extension` finds: the server's own, and stand-ins for those of Supabase that it lacks.

PostgreSQL 18 looks for extensions in further folders (`extension_control_path`). Ours has two sorts: the
stand-ins, written in SQL (`platform/extensions/`), and the server's own untrusted ones once more, said to be
trusted, because a hosted project's owner may create them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from supabase_chunks.local.process import WINDOWS

if TYPE_CHECKING:
    from collections.abc import Callable

_STAND_INS = Path(__file__).parent / "platform" / "extensions"
_FIRST_VERSION = 18
# Where the original insists on a schema.
_SCHEMAS = {"supabase_vault": "vault", "pgsodium": "pgsodium", "pg_graphql": "graphql"}
# Those that a hosted project offers, of which the server says that only a superuser may create them.
TRUSTED = frozenset(
    {
        *(
            "amcheck",
            "autoinc",
            "bloom",
            "dblink",
            "dict_xsyn",
            "earthdistance",
            "insert_username",
            "moddatetime",
        ),
        *("pageinspect", "pg_buffercache", "pg_stat_statements", "pg_walinspect", "pgrowlocks"),
        *("pgstattuple", "postgres_fdw", "refint", "vector"),
    }
)
# Stand-ins that are there from the start, by the schema that shows it.
BUILT_IN = {"pg_cron": "cron", "pg_net": "net", "supabase_vault": "vault"}
# Offered by Supabase, and neither on this server nor among the stand-ins.
MISSING = frozenset(
    {
        *("address_standardizer", "address_standardizer_data_us", "hypopg", "index_advisor", "orioledb"),
        *("pg_hashids", "pg_jsonschema", "pg_partman", "pg_plan_filter", "pg_repack", "pg_stat_monitor"),
        *("pg_tle", "pgaudit", "pgmq", "pgroonga", "pgroonga_database", "pgrouting", "pgtap", "plcoffee"),
        *("plls", "plpgsql_check", "plv8", "postgis", "postgis_raster", "postgis_sfcgal"),
        *("postgis_tiger_geocoder", "postgis_topology", "rum", "sslinfo", "supautils", "timescaledb"),
        *("wrappers", "xml2"),
        # An older server lacks the stand-ins too.
        *("http", "pg_cron", "pg_graphql", "pg_net", "pgcrypto", "pgjwt", "pgsodium", "supabase_vault"),
        *("uuid-ossp", "vector"),
    }
)


def search_path(folder: Path, *, binaries: Path, version: int, give: Callable[[Path], None]) -> str | None:
    """Write our extensions into a folder; return the server's setting `extension_control_path`.

    Args:
        folder: A folder of the cluster; made when it is missing.
        binaries: Where the server's programs are.
        version: The server's major version.
        give: Makes a path readable for the server's user.

    Returns:
        None when this server looks in its own folder only.
    """
    own = next((path.parent for path in binaries.parent.glob("share/**/plpgsql.control")), None)
    if version < _FIRST_VERSION or own is None:
        return None
    place = folder / "extension"
    place.mkdir(parents=True, exist_ok=True)
    files = dict(_stand_ins(own)) | dict(_trusted(own))
    for path in place.iterdir():
        if path.name not in files:
            path.unlink()
    for name, text in files.items():
        (place / name).write_text(text, encoding="utf-8")
    for path in (folder, place, *place.iterdir()):
        give(path)
    return f"{folder}{';' if WINDOWS else ':'}$system"


def _stand_ins(own: Path) -> list[tuple[str, str]]:
    files: list[tuple[str, str]] = []
    for script in sorted(_STAND_INS.glob("*.sql")):
        name = script.stem
        if (own / f"{name}.control").exists():
            continue
        schema = f"schema = {_SCHEMAS[name]}\n" if name in _SCHEMAS else ""
        control = (
            "comment = 'stand-in of the local stack of supabase-chunks'\n"
            f"default_version = 'stand-in'\nrelocatable = false\ntrusted = true\n{schema}"
        )
        files.append((f"{name}.control", control))
        files.append((f"{name}--stand-in.sql", script.read_text(encoding="utf-8")))
    return files


def _trusted(own: Path) -> list[tuple[str, str]]:
    return [
        (path.name, f"{path.read_text(encoding='utf-8')}\ntrusted = true\ndirectory = '{own.as_posix()}'\n")
        for path in (own / f"{name}.control" for name in TRUSTED)
        if path.exists()
    ]
