-- What `counted` is for images that were admitted without a price.
counted as (
  insert into usage as u (key_id, day, model, pictures, list_amount, cost)
  select key_id, (delivered_at at time zone 'UTC')::date, model, count(*), sum(list_price), coalesce(sum(cost), 0)
  from settled where delivered_at is not null group by 1, 2, 3 order by 1, 2, 3
  on conflict (key_id, day, model) do update set pictures = u.pictures + excluded.pictures,
    list_amount = u.list_amount + excluded.list_amount, cost = u.cost + excluded.cost
)
