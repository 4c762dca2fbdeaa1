"""What is done again and again: the monitor's tick, housekeeping, looking for a new champion."""
