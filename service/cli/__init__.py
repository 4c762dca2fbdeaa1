"""The commands, a file per noun; heavy imports happen where a command runs, never where it is declared."""
