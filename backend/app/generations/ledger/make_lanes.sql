-- Makes the lanes of these keys, where there are none. They are never deleted.
with keys as materialized (
  select k.id, k.account_id from api_keys k where k.id = any(:key_id) order by k.id for no key update
), needed as materialized (
  select distinct k.id, k.account_id, i.class from unnest(:key_id::text[], :class::text[]) as i(key_id, class)
  join keys k on k.id = i.key_id
), lane as (
  insert into lanes (account_id, class) select distinct account_id, class from needed order by 1, 2 on conflict do nothing
)
insert into lane_keys (key_id, class, account_id) select id, class, account_id from needed order by 1, 2
on conflict do nothing
