"""How a reading becomes an entry: the state of a channel, its places in the tree, the loop."""
