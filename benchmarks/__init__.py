"""The benchmark: this store and others, in turns, on the same events, the same server and the same durability.

cases.py names what is measured, turns.py does it, measure.py has them take turns; contenders/ compete, reports/ show.
"""
