"""Installing supabase-chunks into a Supabase project: its migrations, its functions and their configuration.

Everything is planned before anything is written, so that a project is never left half-changed; doing it again
changes nothing, and a newer package adds only what is new.
"""

from __future__ import annotations

from supabase_chunks.errors import InstallError
from supabase_chunks.install.plan import Plan
from supabase_chunks.install.project import Project
from supabase_chunks.install.scaffold import new_kind

__all__ = ["InstallError", "Plan", "Project", "new_kind"]
