"""The command line: one verb a need, each a thin face of something that is elsewhere."""
