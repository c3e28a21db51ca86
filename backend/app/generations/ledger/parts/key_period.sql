-- When the period of the cap of key `k` began in which `c.at` lies. A cap without a period is for the key's whole life.
case k.cap_period when 'day' then date_trunc('day', c.at, 'UTC') when 'month' then date_trunc('month', c.at, 'UTC')
  else '-infinity' end
