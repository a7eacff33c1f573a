"""The store on disk: opaque payloads in an append-only journal, with snapshots."""
