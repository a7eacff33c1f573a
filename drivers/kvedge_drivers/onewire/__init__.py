"""1-Wire: thermometers behind an owserver."""
