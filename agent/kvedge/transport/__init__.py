"""Bytes over the world: sockets, brokers, the service manager.  No meaning, no decisions."""
