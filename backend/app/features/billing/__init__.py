"""The account's money: its balance, its entries, its charges and its cap."""
