"""Names of the files that the job and the process that counts the slices exchange."""

SPEC, RESULT, REASON = "spec.json", "result.json", "reason.txt"
