-- Ends the connection that this writer had before, waits until it is gone at the server, with all that it was still doing
-- there, and has the writer's next one do the same to this. Where it cannot be ended from here (its role is another one),
-- the server notices within ten seconds that a network has cut it off. It locks no row.
with ended as materialized (
  select count(pg_terminate_backend(l.pid)) as connections from pg_locks l join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.objsubid = 1 and a.datname = current_database() and a.usename = current_user
    and (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(:writer, 0) and l.granted
)
select set_config('tcp_keepalives_idle', '4', false), set_config('tcp_keepalives_interval', '2', false),
  set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false),
  pg_advisory_lock(hashtextextended(:writer, 0))
from ended
