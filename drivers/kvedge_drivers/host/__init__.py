"""The board itself: temperatures, load, memory, disks, clock, supply voltage."""
