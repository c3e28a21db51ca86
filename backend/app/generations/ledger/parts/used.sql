-- Moves `last_used_at` of the keys of `taken`, and adds to what they hold where they have a cap. That is asked of the row
-- as it was locked: the condition of an update is asked of the snapshot first, and passes over what has changed since.
used as (
  update api_keys k set last_used_at = greatest(l.last_used_at, now()),
    held = l.held + case when l.cap is not null then t.amount else 0 end
  from taken t join keys l on l.id = t.key_id
  where k.id = t.key_id
    and (l.cap is not null or l.last_used_at is null or l.last_used_at < now() - interval '1 second')
)
