"""Ready-made slicing functions by domain; load one with ``FunctionSet.from_module("sfs.library.spam")``."""
