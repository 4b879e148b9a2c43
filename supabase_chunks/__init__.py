"""Long syncs that finish on Supabase."""
