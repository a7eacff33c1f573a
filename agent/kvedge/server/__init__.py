"""The store as a program: what connections may ask, how writes become durable, who is told."""
