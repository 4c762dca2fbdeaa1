"""Jobs that run at intervals, and the child processes of the heavy ones."""
