"""Commands, a file per noun; heavy imports happen when a command runs, so that help stays fast."""
