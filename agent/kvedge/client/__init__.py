"""The floor for applications: connections, watches, mirrors."""
