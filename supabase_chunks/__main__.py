"""`python -m supabase_chunks`: the command line, where no script of its name is on the path."""

from supabase_chunks.cli import main

if __name__ == "__main__":
    main()
