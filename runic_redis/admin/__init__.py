"""Tools for operators: verify, doctor, describe, browse, export, import, watch.

Each is an operation like those of a store, and none is a method of a store.
"""
