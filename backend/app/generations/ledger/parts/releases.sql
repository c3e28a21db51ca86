-- Takes the prices of `to_release` off what its accounts and keys hold.
released as materialized (
  select account_id, key_id, sum(price)::bigint as amount from to_release where price > 0 group by 1, 2
), released_balance as (
  update balances b set held = p.held - r.amount
  from (select account_id, sum(amount)::bigint as amount from released group by 1) r
  join payers p on p.account_id = r.account_id
  where b.account_id = r.account_id
), released_key as (
  update api_keys k set held = l.held - r.amount from released r join keys l on l.id = r.key_id and l.cap is not null
  where k.id = r.key_id
)
