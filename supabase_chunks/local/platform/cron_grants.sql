-- What the platform lets the project's owner do with pg_cron, original or stand-in: schedule by the functions, look at
-- the tables, clear away old runs.
grant usage on schema cron to postgres with grant option;
grant execute on all functions in schema cron to postgres with grant option;
revoke all on cron.job from postgres;
grant select on cron.job to public;
grant select on cron.job to postgres with grant option;
grant select, delete on cron.job_run_details to public;
grant select, delete on cron.job_run_details to postgres with grant option;
