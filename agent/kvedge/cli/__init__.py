"""The command `kv`: parse, call one function below, print."""
