-- Waits until the connection that this writer had before has ended at the server, with all that it was still doing there,
-- and has the writer's next one wait for this. The server notices within ten seconds that a network has cut it off. It
-- locks no row.
select set_config('tcp_keepalives_idle', '4', false), set_config('tcp_keepalives_interval', '2', false),
  set_config('tcp_keepalives_count', '3', false), set_config('tcp_user_timeout', '10000', false),
  pg_advisory_lock(hashtextextended(:writer, 0))
