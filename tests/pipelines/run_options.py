"""Run options that most tests of the pipeline use."""

from talking_face.execution.options import RunOptions

QUIET = RunOptions(workers=0, quiet=True)  # in this process
