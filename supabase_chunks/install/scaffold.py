"""A new kind of sync in a project: its handler, its configuration and the migration that registers it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from supabase_chunks import assets
from supabase_chunks.errors import InstallError
from supabase_chunks.install.plan import Plan

if TYPE_CHECKING:
    from supabase_chunks.install.project import Project

# A function that imports the same as a new handler does: their versions go together.
_MODEL = "background-sync-processor"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_HANDLER = """\
/** The handler of the kind `{name}`: does the work of one chunk. */

import {{ serveHandler }} from "../{shared}/serve.ts";

export default serveHandler((chunk, {{ log }}) => {{
  // chunk.payload says what this chunk is to do, chunk.job_payload what all of the job have in common.
  //
  // A chunk may run again after a death: write so that running twice does what running once does.
  // Throw Throttled(seconds) when an API asks for a pause, RetryLater(seconds) to have it tried again later,
  // PermanentFailure(reason) when that is of no use.
  // What takes longer than an invocation goes on from chunk.checkpoint: save(), return {{ continue: true }}.
  log("chunk_received", {{ chunk: Number(chunk.chunk_id) }});
  // What is returned completes the chunk; next_chunks adds further ones to the job.
  return {{ result: {{ seen: chunk.payload }}, items_processed: 1 }};
}}, {{ name: "{name}" }});
"""
_MIGRATION = """\
-- The kind {name}: its chunks are worked by the Edge Function {name}.
select public.save_sync_kind(
  kind => '{name}',
  handler => '{name}',
  max_concurrency => {concurrency},
  user_startable => false
);
"""


def new_kind(project: Project, name: str, *, max_concurrency: int = 4) -> Plan:
    """Plan the files of a new kind.

    Args:
        project: A project that supabase-chunks was installed in.
        name: What the kind and its function are called.
        max_concurrency: How many chunks of one job may be worked on at once.

    Raises:
        InstallError: The name cannot be one, is taken, or the project lacks what a handler needs.
    """
    if not _NAME.fullmatch(name):
        raise InstallError(
            f"{name!r} cannot name a function: use small letters, digits and -, a letter first."
        )
    folder = project.functions_dir / name
    if folder.exists():
        raise InstallError(f"There is a function {name} already: {folder}.")
    shared = next(path.parent.name for path in assets.function_files() if path.name == "serve.ts")
    if not (project.functions_dir / shared / "serve.ts").is_file():
        raise InstallError("The project lacks what a handler needs: run supabase-chunks init first.")
    plan = Plan(project)
    plan.add(folder / "index.ts", _HANDLER.format(name=name, shared=shared).encode())
    for file in ("deno.json", "deno.lock"):
        plan.add(folder / file, (assets.functions_dir() / _MODEL / file).read_bytes())
    (stamp,) = project.next_timestamps(1)
    migration = project.migrations_dir / f"{stamp}_kind_{name.replace('-', '_')}.sql"
    plan.add(migration, _MIGRATION.format(name=name, concurrency=max_concurrency).encode())
    plan.add_functions([name])
    return plan
