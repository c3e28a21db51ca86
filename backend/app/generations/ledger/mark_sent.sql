-- Marks requests as handed to a provider, where they are still under their lease: from then on they may have been paid,
-- and cannot be cancelled. One row for each image, in order: whether it is marked, and whether it can still be. It waits
-- for no lock: a request of which another transaction holds an image is not marked, and is to be asked for again. So
-- all images of a request are marked or none, and whoever ends it finds either.
with free as materialized (
  select g.id from generations g where g.id = any(:id) order by g.id for no key update skip locked
), whole as (
  select i.lease from unnest(:id::text[], :lease::uuid[]) as i(id, lease) left join free on free.id = i.id
  group by i.lease having count(*) = count(free.id)
), marked as (
  update generations g set sent_at = coalesce(g.sent_at, now())
  from unnest(:id::text[], :lease::uuid[]) as i(id, lease) join whole on whole.lease = i.lease
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease returning g.id
)
select m.id is not null as marked, coalesce(g.status = 'processing' and g.lease = i.lease, false) as held
from unnest(:id::text[], :lease::uuid[]) with ordinality as i(id, lease, n)
left join marked m on m.id = i.id left join generations g on g.id = i.id order by i.n
