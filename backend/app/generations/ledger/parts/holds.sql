-- Adds the prices of `to_hold` to what its accounts hold. From the rows that were really written: what is sent again is
-- held once.
taken as materialized (
  select account_id, key_id, sum(price)::bigint as amount from to_hold group by 1, 2
), of_account as materialized (
  select account_id, sum(amount)::bigint as amount from taken group by 1
), held_balance as (
  update balances b set held = p.held + t.amount from of_account t join payers p on p.account_id = t.account_id
  where b.account_id = t.account_id
)
