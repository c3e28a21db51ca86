-- For each of `keys` what it and its account may still spend: of the credit and the allowance (null for one that pays
-- afterwards), of the account's cap and of its own (null for none). What is held counts in every period.
rooms as materialized (
  select k.id as key_id, k.account_id, b.account_id is null as is_skipped,
    case when not b.is_postpaid then b.credit - b.charged - b.held + greatest(b.allowance - {spent}, 0) end as credit,
    b.cap - b.held - {spent} as account_cap, k.cap - k.held - {key_spent} as key_cap,
    {period} + interval '1 month' as account_ends_at,
    {key_period} + case k.cap_period when 'day' then interval '1 day' when 'month' then interval '1 month' end
      as key_ends_at
  from keys k cross join clock c left join payers b on b.account_id = k.account_id
)
