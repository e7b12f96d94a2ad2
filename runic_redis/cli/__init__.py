"""The command line. Each verb parses its options, runs operations of a store, and prints the result.

- `main` starts and ends the command; `app` collects the verbs, and imports those that it needs.
- `options` has the options that verbs share; `output` prints, and sets the exit status.
- `looking`: workflows, show, facts, stats. `reading`: events. `following`: tail. `filters`: the filters of both.
- `checking`: verify, doctor. `changing`: trim, collect, delete, expire, persist. `moving`: export, import, copy.
- `running`: serve, demo, bench. `ui`: ui.

The operations are in runic_redis/operations and runic_redis/admin.
"""
