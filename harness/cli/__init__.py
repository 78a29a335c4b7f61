"""The command line: one module for each command. A command parses its options, calls one package, and prints the result."""
