-- What became of requests that were not to be settled any more, where it was under this lease; and whether another
-- worker has had them since, or may.
select case when g.lease = i.lease then g.status end as status,
  g.id is not null and g.lease is distinct from i.lease as is_anothers
from unnest(:id::text[], :lease::uuid[]) with ordinality as i(id, lease, n)
left join generations g on g.id = i.id order by n
