"""How every operator can be sharded: one rule per operator kind, over its iteration axes."""
