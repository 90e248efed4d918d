"""Who asks: users, keys, tokens, groups. `Identity` makes a principal of whatever credential came."""
