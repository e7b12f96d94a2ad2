"""Tools for operators. Each is an operation that ``store.run`` runs, and none is a method of a store.

- `verifying` verifies and repairs a namespace, `workflow_check` one workflow; `keyspace` lists the keys on the server.
- `doctor` examines the server.
- `describing` and `browsing` read workflows for people; `watching` follows a whole namespace.
- `exporting`, `importing` and `archive` move workflows.

Options, texts and exit statuses are in runic_redis/cli, and web pages in runic_redis/ui.
"""
