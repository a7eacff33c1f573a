"""Sans-IO state machines: bytes or messages in, events and bytes out, time as a parameter."""
