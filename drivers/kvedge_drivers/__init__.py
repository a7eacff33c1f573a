"""Hardware drivers: buses, chips and boards as readings in the tree."""
