"""What Prometheus reads: the counters of this process, and the gauges of the last snapshot."""
