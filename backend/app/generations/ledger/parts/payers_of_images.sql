-- The balances of the accounts of those `images` that have a price, locked; where nothing has one, none is.
select b.* from balances b
where b.account_id = any(array(select k.account_id from images i join keys k on k.id = i.key_id where i.price > 0))
order by b.account_id for no key update
