"""The commands of `supabase-chunks`, a file a topic. What they need is imported when they run."""
