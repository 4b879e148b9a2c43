"""What the local stack reads out of a project's config.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from supabase_chunks.local import LocalStackError
from supabase_chunks.local.functions import FunctionConfig
from supabase_chunks.local.project import ApiConfig, Project, project_folder

if TYPE_CHECKING:
    from pathlib import Path


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def project(folder: Path, config: str = "", *names: str) -> Project:
    touch(folder, *names)
    (folder / "config.toml").write_text(config)
    return Project(folder)


def quiet(text: str) -> None:
    raise AssertionError(text)


def test_a_project_without_a_word_has_the_clis_defaults(tmp_path: Path) -> None:
    touch(
        tmp_path, "migrations/1_a.sql", "seed.sql", "functions/hello/index.ts", "functions/_shared/index.ts"
    )
    found = Project(tmp_path)
    assert found.migrations == tmp_path / "migrations"
    assert found.seeds(quiet) == {"supabase/seed.sql": tmp_path / "seed.sql"}
    assert found.functions == [
        FunctionConfig("hello", tmp_path / "functions/hello/index.ts", verify_jwt=True)
    ]
    assert found.functions_env == {}
    assert found.api == ApiConfig(schemas=["public", "graphql_public"])


def test_migrations_and_seeds_can_be_off(tmp_path: Path) -> None:
    config = "[db.migrations]\nenabled = false\n[db.seed]\nenabled = false\n"
    found = project(tmp_path, config, "migrations/1_a.sql", "seed.sql")
    assert found.migrations is None
    assert found.seeds(quiet) == {}


def test_seeds_come_in_the_order_of_their_patterns(tmp_path: Path) -> None:
    config = '[db.seed]\nsql_paths = ["./seeds/z.sql", "./seeds/*.sql", "nothing/*.sql"]\n'
    said: list[str] = []
    found = project(tmp_path, config, "seeds/a.sql", "seeds/b.sql", "seeds/z.sql").seeds(said.append)
    assert list(found) == ["supabase/seeds/z.sql", "supabase/seeds/a.sql", "supabase/seeds/b.sql"]
    assert said == ["config.toml, db.seed.sql_paths: no file matches nothing/*.sql."]


def test_functions_as_the_config_says(tmp_path: Path) -> None:
    config = """
        [functions.open]
        verify_jwt = false
        [functions.off]
        enabled = false
        [functions.elsewhere]
        entrypoint = "./functions/group/main.ts"
        import_map = "./functions/group/imports.json"
    """
    names = [f"functions/{name}/index.ts" for name in ("open", "off", "mapped", "9th")]
    found = project(tmp_path, config, *names, "functions/mapped/deno.jsonc", "functions/import_map.json")
    folder = tmp_path / "functions"
    assert found.functions == [
        FunctionConfig("elsewhere", folder / "group/main.ts", folder / "group/imports.json", True),
        FunctionConfig("mapped", folder / "mapped/index.ts", folder / "mapped/deno.jsonc", True),
        FunctionConfig("open", folder / "open/index.ts", folder / "import_map.json", False),
    ]


def test_functions_can_be_off_altogether(tmp_path: Path) -> None:
    assert project(tmp_path, "[edge_runtime]\nenabled = false\n", "functions/a/index.ts").functions == []


def test_environment_of_the_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "outer")
    found = project(tmp_path, '[edge_runtime.secrets]\nSECRET = "env(FROM_OUTSIDE)"\n', "functions/.env")
    (tmp_path / "functions" / ".env").write_text(
        '# a comment\nPLAIN=one two # three\nexport QUOTED = "a\\nb \\"c\\""\nRAW=\'x$y\\n\'\n'
        "EMPTY=\nSUPABASE_URL=mine\n"
    )
    assert found.functions_env == {
        "PLAIN": "one two",
        "QUOTED": 'a\nb "c"',
        "RAW": "x$y\\n",
        "EMPTY": "",
        "SECRET": "outer",
    }


def test_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPOSE", "true")
    config = '[api]\nschemas = ["shop"]\nmax_rows = 5\nauto_expose_new_tables = "env(EXPOSE)"\n'
    assert project(tmp_path, config).api == ApiConfig(["shop"], max_rows=5, auto_expose_new_tables=True)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ("[api\n", "cannot be read"),
        ('[api]\nmax_rows = "many"\n', "api.max_rows must be of type int, not 'many'"),
        (
            "[functions]\nhello = 1\n[db]\nseed = 3\n[edge_runtime]\nenabled = 7\n",
            "edge_runtime.enabled must be",
        ),
    ],
)
def test_a_config_that_cannot_be_meant(tmp_path: Path, config: str, complaint: str) -> None:
    with pytest.raises(LocalStackError, match=f"config.toml.*{complaint}"):
        print(project(tmp_path, config).api, Project(tmp_path).functions)


def test_the_folder_or_the_one_above_it(tmp_path: Path) -> None:
    with pytest.raises(LocalStackError, match="There is no project in"):
        project_folder(tmp_path)
    touch(tmp_path, "supabase/config.toml")
    assert project_folder(tmp_path) == project_folder(tmp_path / "supabase") == tmp_path / "supabase"
