"""The roof: the command line, the evaluation run and the demo. The only room that knows all the others."""
