-- Hands waiting requests of one class to a worker: of the lanes whose turn is oldest, from each as many as its weight
-- says, the oldest first, within what the account and each key may have running; in as many rounds as it takes to fill
-- the worker's hands. One row for each image. It waits for no lock. A lane that gave its round, or could give nothing,
-- goes to the end: so none keeps others waiting. One that the worker had too few hands for goes as far back as the part
-- of its round that it gave.
with lane as materialized (
  select account_id, weight, turn, running, coalesce(most, :account_most) - running as free
  from lanes where class = :class and waiting > 0 and running < coalesce(most, :account_most)
  order by turn limit :jobs_max for no key update skip locked
), rounds as materialized (
  select (:jobs_max + sum(weight) - 1) / sum(weight) as number from lane
), lane_key as materialized (
  -- These rows change under the lane's lock alone: what is read after it is how they are. What waits under a stopped
  -- key, since the version before stopped it, waits until it expires.
  select w.key_id, w.account_id, w.running, l.weight * (select number from rounds) as at_most,
    coalesce(k.generate_concurrency, a.generate_concurrency_per_key, :key_most) - w.running as free
  from lane l join lane_keys w on w.account_id = l.account_id and w.class = :class
  join api_keys k on k.id = w.key_id join accounts a on a.id = w.account_id
  where k.revoked_at is null and not k.is_suspended and w.waiting > 0
    and w.running < coalesce(k.generate_concurrency, a.generate_concurrency_per_key, :key_most)
  for no key update of w
), oldest as materialized (
  select g.id, w.account_id, w.key_id, w.free as key_free, w.running as key_running, i.ids, cardinality(i.ids) as images
  from lane_key w cross join lateral (
    -- Ordered by a range of classes and not by the id alone, for which the planner would go through the whole table by
    -- id in the hope of finding some of this key soon.
    select id from generations where key_id = w.key_id and class between :class and :class and status = 'queued'
      and id = request_id and lease_until > now()
    order by class, id limit least(w.at_most, w.free) for no key update skip locked
  ) g cross join lateral (
    -- The ids of a request begin with the same time.
    select array_agg(id order by id) as ids from generations
    where id >= left(g.id, 14) and id < left(g.id, 14) || '~' and request_id = g.id
  ) i
), in_order as (
  select o.*, l.weight, l.turn, l.free, l.running,
    row_number() over lane_order as place, sum(images) over lane_order as of_account, sum(images) over key_order as of_key
  from oldest o join lane l on l.account_id = o.account_id
  window lane_order as (partition by o.account_id order by o.id), key_order as (partition by o.key_id order by o.id)
), ready as materialized (
  -- A request with more images than may run at a time runs alone.
  select *, (place - 1) / weight as round from in_order
  where (of_account <= free or place = 1 and running = 0) and (of_key <= key_free or of_key = images and key_running = 0)
), chosen as materialized (
  select id, account_id, ids, gen_random_uuid() as lease from ready
  where round < (select number from rounds) order by round, turn, account_id, place limit :jobs_max
), given as materialized (
  select r.account_id, count(c.id) as requests, count(c.id) = count(*) or count(c.id) >= min(r.weight) as is_all
  from ready r left join chosen c on c.id = r.id group by 1
), taken as (
  update generations g set status = 'processing', attempts = g.attempts + 1, lease = i.lease,
    lease_until = now() + make_interval(secs => :lease_seconds)
  from (select unnest(ids) as id, lease from chosen) i
  -- The empty text hides the status from the planner: without statistics it would read the index of all that waits.
  where g.id = any(array(select unnest(ids) from chosen)) and g.id = i.id and g.status || '' = 'queued'
  returning g.id, g.request_id, g.account_id, g.environment, g.key_id, g.prompt, g.size, g.format, g.model, g.provider,
    g.quality, g.list_price, g.price, g.inputs, g.options, g.attempts, g.lease, g.created_at, g.expires_at
), of_key as materialized (
  select account_id, key_id, count(*)::int as images from taken group by 1, 2
), turned as (
  update lanes l set waiting = greatest(l.waiting - coalesce(t.images, 0), 0),
    running = l.running + coalesce(t.images, 0),
    turn = case when coalesce(g.is_all, true) then nextval('turns')
      else l.turn + (nextval('turns') - l.turn) * g.requests / l.weight end
  from lane left join given g using (account_id)
  left join (select account_id, sum(images)::int as images from of_key group by 1) t using (account_id)
  where l.account_id = lane.account_id and l.class = :class and coalesce(g.requests, 1) > 0
), running_of_key as (
  update lane_keys w set waiting = greatest(w.waiting - t.images, 0), running = w.running + t.images
  from of_key t where w.key_id = t.key_id and w.class = :class
)
select * from taken order by request_id, id
