"""Chaos tests: clients work while their servers and connections fail, and a judge checks what they were told."""
