"""Pure arithmetic of monitoring: counts, estimates, drift, gate and retraining policy; no clock, no I/O."""
