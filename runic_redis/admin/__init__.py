"""Tools for operators: verify, doctor, describe, browse, export, import, watch.

Each is an operation that ``store.run`` runs. None is a method of a store.
"""
