-- Access: who may do what, in one place. A new Supabase project grants nothing by default, an older one everything, so
-- each right is first taken and then given.
--
--   anon            nothing
--   authenticated   the functions for users, and reading of the own rows
--   service_role    everything listed, and the tables behind it

-- Tables and view
revoke all on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states, public.sync_limits,
  public.chunk_processing_status
  from public, anon, authenticated, service_role;
grant select on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states, public.chunk_processing_status
  to authenticated;
grant select, insert, update, delete on public.sync_kinds, public.sync_jobs, public.chunk_processing_queue, public.sync_states,
  public.sync_limits
  to service_role;
grant select on public.chunk_processing_status to service_role;

revoke all on schema chunk_private from public, anon;
grant usage on schema chunk_private to authenticated, service_role;
revoke all on all tables in schema chunk_private from public, anon, authenticated, service_role;
grant select on chunk_private.job_counters, chunk_private.newest_counters, chunk_private.slots, chunk_private.dispatches to authenticated; -- what the view reads
-- What list_chunk_attempts reads: all but the tokens.
grant select (id, job_id, chunk_id, attempt, outcome, error, worker_id, claimed_at, ended_at) on chunk_private.chunk_attempts to authenticated;
grant select, insert, update, delete on all tables in schema chunk_private to service_role;
revoke insert, update, delete on chunk_private.claim_lanes, chunk_private.newest_counters, chunk_private.newest_stripes from service_role;

-- Sequences of identity columns need no grant to insert.
revoke all on all sequences in schema chunk_private from public, anon, authenticated, service_role;
revoke all on sequence public.chunk_processing_queue_id_seq, public.sync_states_id_seq from public, anon, authenticated, service_role;

-- Rows
select chunk_private.set_reading_policy('public.sync_kinds', 'Users see the kinds', 'true');
select chunk_private.set_reading_policy('public.sync_jobs', 'Users see their own jobs', 'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('public.chunk_processing_queue', 'Users see their own chunks',
  'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('public.sync_states', 'Users see their own states', 'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('chunk_private.job_counters', 'Users see their own counters',
  'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('chunk_private.slots', 'Users see the slots of their own jobs',
  'exists (select from public.sync_jobs j where j.id = slots.job_id and j.owner_id = (select auth.uid() as uid))');
select chunk_private.set_reading_policy('chunk_private.dispatches', 'Users see their own dispatches',
  'owner_id = (select auth.uid() as uid)');

select chunk_private.set_reading_policy('chunk_private.chunk_attempts', 'Users see the attempts of their own chunks',
  'exists (select from public.chunk_processing_queue q where q.id = chunk_attempts.chunk_id and q.owner_id = (select auth.uid() as uid))');

-- What only the service reads. A policy that lets nobody in says so; without one it would look forgotten.
select chunk_private.set_reading_policy('chunk_private.settings', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.lanes', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.fresh_stripes', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.returned_chunks', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.answered_requests', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.healings', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.watchdog', 'No user sees these', 'false');
select chunk_private.set_reading_policy('public.sync_limits', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.limit_paces', 'No user sees these', 'false');
select chunk_private.set_reading_policy('chunk_private.limit_seekers', 'No user sees these', 'false');

-- Functions
revoke execute on all functions in schema chunk_private from public, anon, authenticated, service_role;
revoke execute on function
  public.save_sync_kind, public.remove_sync_kind, public.save_chunk_settings, public.configure_chunk_processing, public.start_sync_job, public.append_sync_chunks,
  public.claim_next_chunk_job_safe, public.claim_chunk_jobs_safe, public.complete_chunk_job_safe, public.complete_chunk_jobs_safe,
  public.extend_chunk_lease, public.extend_chunk_leases, public.release_chunk_job, public.get_sync_state, public.save_sync_state, public.trigger_next_chunk_processing,
  public.cleanup_stuck_chunks, public.get_sync_job_progress_safe, public.list_chunk_attempts, public.cancel_sync_job, public.pause_sync_job,
  public.resume_sync_job, public.retry_failed_chunks, public.purge_sync_jobs, public.chunk_system_health,
  public.save_sync_limit, public.block_sync_limit, public.pace_sync_limit, public.list_sync_limits,
  public.enqueue_chunks_from_rows
from public, anon, authenticated, service_role;

grant execute on function
  public.start_sync_job, public.append_sync_chunks, public.get_sync_job_progress_safe, public.list_chunk_attempts,
  public.cancel_sync_job, public.pause_sync_job, public.resume_sync_job, public.retry_failed_chunks, public.enqueue_chunks_from_rows
to authenticated;
-- What the view of progress says of limits; it checks who calls.
grant execute on function chunk_private.waiting_for to authenticated;
-- The bodies of the above, which check who calls.
grant execute on function
  chunk_private.start_sync_job, chunk_private.append_sync_chunks, chunk_private.enter_own_jobs, chunk_private.cancel_sync_job, chunk_private.pause_sync_job,
  chunk_private.resume_sync_job, chunk_private.retry_failed_chunks, chunk_private.settle_jobs
to authenticated;

grant execute on function
  public.save_sync_kind, public.remove_sync_kind, public.save_chunk_settings, public.configure_chunk_processing, public.start_sync_job, public.append_sync_chunks,
  public.claim_next_chunk_job_safe, public.claim_chunk_jobs_safe, public.complete_chunk_job_safe, public.complete_chunk_jobs_safe,
  public.extend_chunk_lease, public.extend_chunk_leases, public.release_chunk_job, public.get_sync_state, public.save_sync_state, public.trigger_next_chunk_processing,
  public.cleanup_stuck_chunks, public.get_sync_job_progress_safe, public.list_chunk_attempts, public.cancel_sync_job, public.pause_sync_job,
  public.resume_sync_job, public.retry_failed_chunks, public.purge_sync_jobs, public.chunk_system_health,
  public.save_sync_limit, public.block_sync_limit, public.pace_sync_limit, public.list_sync_limits,
  public.enqueue_chunks_from_rows
to service_role;
grant execute on all functions in schema chunk_private to service_role;
-- Writes a Vault entry of any name: for the owner's definer functions only. And what is for migrations only.
revoke execute on function chunk_private.save_secret, chunk_private.replace_view, chunk_private.set_reading_policy from service_role;

-- Email ---------------------------------------------------------------------------------------------------------------

revoke all on public.email_accounts, public.synced_emails, public.email_folders from public, anon, authenticated, service_role;
revoke all on chunk_private.email_token_leases from public, anon, authenticated, service_role;
grant select on public.email_accounts, public.synced_emails, public.email_folders to authenticated;
grant select, insert, update, delete on public.email_accounts, public.synced_emails, public.email_folders to service_role;
revoke all on sequence public.synced_emails_id_seq from public, anon, authenticated, service_role;

select chunk_private.set_reading_policy('public.email_accounts', 'Users see their own email accounts',
  'owner_id = (select auth.uid() as uid)');
select chunk_private.set_reading_policy('public.synced_emails', 'Users see the emails of their own accounts',
  'account_id in (select a.id from public.email_accounts a where a.owner_id = (select auth.uid() as uid))');

select chunk_private.set_reading_policy('chunk_private.email_token_leases', 'No user sees these', 'false');
select chunk_private.set_reading_policy('public.email_folders', 'Users see the folders of their own accounts',
  'account_id in (select a.id from public.email_accounts a where a.owner_id = (select auth.uid() as uid))');

revoke execute on function
  public.save_email_account, public.remove_email_account, public.get_email_account_secret, public.plan_email_folder,
  public.save_synced_emails, public.save_email_flags, chunk_private.save_email_account,
  chunk_private.remove_email_account, chunk_private.get_email_account_secret, chunk_private.check_email_port, chunk_private.forget_email_password,
  public.save_email_folders, public.get_email_folder, public.update_email_folder, public.renumber_email_folder,
  public.adopt_moved_emails, chunk_private.note_email_folder, chunk_private.has_gone_emails,
  chunk_private.mark_emails_alone, chunk_private.store_emails_together, chunk_private.reunite_emails, chunk_private.reunite_new_emails, chunk_private.reunite_gone_emails,
  public.begin_email_token, public.save_email_token, public.refuse_email_token, chunk_private.begin_email_token,
  chunk_private.save_email_token, chunk_private.refuse_email_token, chunk_private.email_secret,
  chunk_private.check_email_account, chunk_private.email_oauth_secret
from public, anon, authenticated, service_role;
grant execute on function
  public.save_email_account, public.remove_email_account, chunk_private.save_email_account, chunk_private.remove_email_account
to authenticated, service_role;
grant execute on function
  public.get_email_account_secret, public.plan_email_folder, public.save_synced_emails, public.save_email_flags,
  chunk_private.get_email_account_secret, chunk_private.check_email_port,
  public.save_email_folders, public.get_email_folder, public.update_email_folder, public.renumber_email_folder,
  public.adopt_moved_emails, chunk_private.note_email_folder, chunk_private.has_gone_emails,
  chunk_private.mark_emails_alone, chunk_private.store_emails_together, chunk_private.reunite_emails, chunk_private.reunite_new_emails, chunk_private.reunite_gone_emails,
  public.begin_email_token, public.save_email_token, public.refuse_email_token, chunk_private.begin_email_token,
  chunk_private.save_email_token, chunk_private.refuse_email_token
to service_role;
