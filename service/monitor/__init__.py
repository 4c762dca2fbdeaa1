"""Pure arithmetic of monitoring: blocks of counts, windows over them, estimates, and the snapshot of all."""
