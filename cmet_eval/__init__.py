"""The command line, the evaluation run and the demo. Only `cmet_eval` imports all other packages."""
