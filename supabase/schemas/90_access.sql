-- Access: who may do what, in one place. A new Supabase project grants nothing by default, an older one everything, so
-- each right is first taken and then given.
--
--   anon            nothing
--   authenticated   the functions for users, and reading of the own rows
--   service_role    everything listed, and the tables behind it

-- Tables and view
revoke all on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states,
  public.chunk_processing_status
  from public, anon, authenticated, service_role;
grant select on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states, public.chunk_processing_status
  to authenticated;
grant select, insert, update, delete on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states
  to service_role;
grant select on public.chunk_processing_status to service_role;

revoke all on schema chunk_private from public, anon;
grant usage on schema chunk_private to authenticated, service_role;
revoke all on all tables in schema chunk_private from public, anon, authenticated, service_role;
grant select on chunk_private.job_counters, chunk_private.slots, chunk_private.dispatches to authenticated; -- what the view reads
grant select, insert, update, delete on all tables in schema chunk_private to service_role;
revoke insert, update, delete on chunk_private.claim_lanes from service_role;

-- Sequences of identity columns need no grant to insert.
revoke all on all sequences in schema chunk_private from public, anon, authenticated, service_role;
revoke all on sequence public.chunk_processing_queue_id_seq, public.sync_states_id_seq from public, anon, authenticated, service_role;

-- Rows
alter table public.sync_kinds enable row level security;
alter table public.sync_jobs enable row level security;
alter table public.chunk_processing_queue enable row level security;
alter table public.sync_states enable row level security;
alter table chunk_private.settings enable row level security;
alter table chunk_private.lanes enable row level security;
alter table chunk_private.job_counters enable row level security;
alter table chunk_private.slots enable row level security;
alter table chunk_private.fresh_stripes enable row level security;
alter table chunk_private.returned_chunks enable row level security;
alter table chunk_private.chunk_attempts enable row level security;
alter table chunk_private.dispatches enable row level security;
alter table chunk_private.answered_requests enable row level security;
alter table chunk_private.healings enable row level security;
alter table chunk_private.watchdog enable row level security;

drop policy if exists "Users see the kinds" on public.sync_kinds;
create policy "Users see the kinds" on public.sync_kinds for select to authenticated using (true);
drop policy if exists "Users see their own jobs" on public.sync_jobs;
create policy "Users see their own jobs" on public.sync_jobs for select to authenticated using (owner_id = (select auth.uid()));
drop policy if exists "Users see their own chunks" on public.chunk_processing_queue;
create policy "Users see their own chunks" on public.chunk_processing_queue for select to authenticated using (owner_id = (select auth.uid()));
drop policy if exists "Users see their own states" on public.sync_states;
create policy "Users see their own states" on public.sync_states for select to authenticated using (owner_id = (select auth.uid()));
drop policy if exists "Users see their own counters" on chunk_private.job_counters;
create policy "Users see their own counters" on chunk_private.job_counters for select to authenticated using (owner_id = (select auth.uid()));
drop policy if exists "Users see the slots of their own jobs" on chunk_private.slots;
create policy "Users see the slots of their own jobs" on chunk_private.slots for select to authenticated
  using (exists (select from public.sync_jobs j where j.id = job_id and j.owner_id = (select auth.uid())));
drop policy if exists "Users see their own dispatches" on chunk_private.dispatches;
create policy "Users see their own dispatches" on chunk_private.dispatches for select to authenticated using (owner_id = (select auth.uid()));

-- What only the service reads. A policy that lets nobody in says so; without one it would look forgotten.
drop policy if exists "No user sees these" on chunk_private.settings;
create policy "No user sees these" on chunk_private.settings for select to authenticated using (false);
drop policy if exists "No user sees these" on chunk_private.lanes;
create policy "No user sees these" on chunk_private.lanes for select to authenticated using (false);
drop policy if exists "No user sees these" on chunk_private.fresh_stripes;
create policy "No user sees these" on chunk_private.fresh_stripes for select to authenticated using (false);
drop policy if exists "No user sees these" on chunk_private.returned_chunks;
create policy "No user sees these" on chunk_private.returned_chunks for select to authenticated using (false);
drop policy if exists "No user sees these" on chunk_private.chunk_attempts;
create policy "No user sees these" on chunk_private.chunk_attempts for select to authenticated using (false);
drop policy if exists "No user sees these" on chunk_private.answered_requests;
create policy "No user sees these" on chunk_private.answered_requests for select to authenticated using (false);
drop policy if exists "No user sees these" on chunk_private.healings;
create policy "No user sees these" on chunk_private.healings for select to authenticated using (false);
drop policy if exists "No user sees these" on chunk_private.watchdog;
create policy "No user sees these" on chunk_private.watchdog for select to authenticated using (false);

-- Functions
revoke execute on all functions in schema chunk_private from public, anon, authenticated, service_role;
revoke execute on function
  public.save_sync_kind, public.remove_sync_kind, public.configure_chunk_processing, public.start_sync_job, public.append_sync_chunks,
  public.claim_next_chunk_job_safe, public.claim_chunk_jobs_safe, public.complete_chunk_job_safe, public.complete_chunk_jobs_safe,
  public.extend_chunk_lease, public.extend_chunk_leases, public.release_chunk_job, public.get_sync_state, public.save_sync_state, public.trigger_next_chunk_processing,
  public.cleanup_stuck_chunks, public.get_sync_job_progress_safe, public.cancel_sync_job, public.pause_sync_job,
  public.resume_sync_job, public.retry_failed_chunks, public.purge_sync_jobs, public.chunk_system_health,
  public.enqueue_chunks_from_rows
from public, anon, authenticated, service_role;

grant execute on function
  public.start_sync_job, public.append_sync_chunks, public.get_sync_job_progress_safe, public.cancel_sync_job,
  public.pause_sync_job, public.resume_sync_job, public.retry_failed_chunks, public.enqueue_chunks_from_rows
to authenticated;
-- The bodies of the above, which check who calls.
grant execute on function
  chunk_private.start_sync_job, chunk_private.append_sync_chunks, chunk_private.cancel_sync_job, chunk_private.pause_sync_job,
  chunk_private.resume_sync_job, chunk_private.retry_failed_chunks
to authenticated;

grant execute on function
  public.save_sync_kind, public.remove_sync_kind, public.configure_chunk_processing, public.start_sync_job, public.append_sync_chunks,
  public.claim_next_chunk_job_safe, public.claim_chunk_jobs_safe, public.complete_chunk_job_safe, public.complete_chunk_jobs_safe,
  public.extend_chunk_lease, public.extend_chunk_leases, public.release_chunk_job, public.get_sync_state, public.save_sync_state, public.trigger_next_chunk_processing,
  public.cleanup_stuck_chunks, public.get_sync_job_progress_safe, public.cancel_sync_job, public.pause_sync_job,
  public.resume_sync_job, public.retry_failed_chunks, public.purge_sync_jobs, public.chunk_system_health,
  public.enqueue_chunks_from_rows
to service_role;
grant execute on all functions in schema chunk_private to service_role;
-- Writes a Vault entry of any name: for the owner's definer functions only.
revoke execute on function chunk_private.save_secret from service_role;

-- Email ---------------------------------------------------------------------------------------------------------------

revoke all on public.email_accounts, public.synced_emails, public.email_folders from public, anon, authenticated, service_role;
grant select on public.email_accounts, public.synced_emails, public.email_folders to authenticated;
grant select, insert, update, delete on public.email_accounts, public.synced_emails, public.email_folders to service_role;
revoke all on sequence public.synced_emails_id_seq from public, anon, authenticated, service_role;

alter table public.email_accounts enable row level security;
alter table public.synced_emails enable row level security;
alter table public.email_folders enable row level security;
drop policy if exists "Users see their own email accounts" on public.email_accounts;
create policy "Users see their own email accounts" on public.email_accounts for select to authenticated
  using (owner_id = (select auth.uid()));
drop policy if exists "Users see the emails of their own accounts" on public.synced_emails;
create policy "Users see the emails of their own accounts" on public.synced_emails for select to authenticated
  using (account_id in (select a.id from public.email_accounts a where a.owner_id = (select auth.uid())));

drop policy if exists "Users see the folders of their own accounts" on public.email_folders;
create policy "Users see the folders of their own accounts" on public.email_folders for select to authenticated
  using (account_id in (select a.id from public.email_accounts a where a.owner_id = (select auth.uid())));

revoke execute on function
  public.save_email_account, public.remove_email_account, public.get_email_account_secret, public.plan_email_folder,
  public.save_synced_emails, public.save_email_flags, chunk_private.save_email_account,
  chunk_private.remove_email_account, chunk_private.get_email_account_secret, chunk_private.forget_email_password,
  public.save_email_folders, public.get_email_folder, public.update_email_folder, public.renumber_email_folder,
  public.adopt_moved_emails, chunk_private.note_email_folder, chunk_private.has_gone_emails
from public, anon, authenticated, service_role;
grant execute on function
  public.save_email_account, public.remove_email_account, chunk_private.save_email_account, chunk_private.remove_email_account
to authenticated, service_role;
grant execute on function
  public.get_email_account_secret, public.plan_email_folder, public.save_synced_emails, public.save_email_flags,
  chunk_private.get_email_account_secret,
  public.save_email_folders, public.get_email_folder, public.update_email_folder, public.renumber_email_folder,
  public.adopt_moved_emails, chunk_private.note_email_folder, chunk_private.has_gone_emails
to service_role;
