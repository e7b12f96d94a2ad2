"""The command line. Each verb parses its options, runs operations of a store, and prints the result."""
