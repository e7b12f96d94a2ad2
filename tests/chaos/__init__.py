"""Chaos: clients at work while what they work on breaks, and a judge of what they were told."""
