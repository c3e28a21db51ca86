-- What is there for each request that was not written: the request itself, from an earlier send; or the one that has its
-- claim; or nothing. A statement of its own, since one statement does not see what was committed while it waited. (The
-- version before knows a claim's lease only.)
select g.id, g.created_at, g.status, g.expires_at is not null as is_asynchronous, c.other_ids, c.fingerprint,
  g.expires_at is null and least(g.lease_until, c.lease_until) < now() as lapsed,
  c.created_at < now() - interval '24 hours' and g.status not in ('queued', 'processing') as expired
from unnest(:id::text[], :scope::bytea[]) with ordinality as i(id, scope, n)
left join claims c on c.scope = i.scope
left join generations g on g.id = coalesce(c.generation_id, i.id)
order by i.n
