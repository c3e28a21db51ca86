-- Takes the prices of `settled` off what is held, and charges those of delivered images: to the allowance first, then to
-- the credit, or to the bill where the account pays afterwards.
moved as materialized (
  select account_id, key_id, sum(price)::bigint as released,
    coalesce(sum(price) filter (where delivered_at is not null), 0)::bigint as amount
  from settled where price > 0 group by 1, 2
), bills as materialized (
  select *, least(amount, greatest(allowance - spent, 0)) as from_allowance
  from (
    select b.account_id, b.is_postpaid, b.allowance, b.charged, b.held - m.released as held, m.amount, c.at,
      greatest({period}, b.period) as period, {spent} as spent
    from (
      select account_id, sum(released)::bigint as released, sum(amount)::bigint as amount from moved group by 1
    ) m join payers b on b.account_id = m.account_id cross join clock c
  ) b
), paid as (
  update balances b set held = p.held, period = p.period, spent = p.spent + p.amount,
    charged = p.charged + case when p.is_postpaid then 0 else p.amount - p.from_allowance end
  from bills p where b.account_id = p.account_id
), posted as (
  insert into charges as c (account_id, hour, amount, from_allowance, from_credit, billed)
  select account_id, date_trunc('hour', at, 'UTC'), amount, from_allowance,
    case when is_postpaid then 0 else amount - from_allowance end,
    case when is_postpaid then amount - from_allowance else 0 end
  from bills where amount > 0 order by account_id
  on conflict (account_id, hour) do update set amount = c.amount + excluded.amount,
    from_allowance = c.from_allowance + excluded.from_allowance, from_credit = c.from_credit + excluded.from_credit,
    billed = c.billed + excluded.billed
), spent_of_key as (
  update api_keys k set held = l.held, period = l.period, spent = l.spent
  from (
    select k.id, k.held - m.released as held, greatest({key_period}, k.period) as period, {key_spent} + m.amount as spent
    from moved m join keys k on k.id = m.key_id and k.cap is not null cross join clock c
  ) l
  where k.id = l.id
)
