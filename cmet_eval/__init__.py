"""The command line, the evaluation run and the demo. Only this package imports all the others."""
