-- The balances of the accounts of `keys`, locked. The array has every key locked before the first balance.
select b.* from balances b where b.account_id = any(array(select account_id from keys))
order by b.account_id for no key update
