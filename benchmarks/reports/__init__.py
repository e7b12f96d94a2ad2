"""The reports: a table for the terminal, JSON for programs, one HTML file for people. Each shows a `Report`."""
