"""The daemon that runs jobs: an application of the store, on its client alone."""
