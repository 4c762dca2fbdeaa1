"""Settings of a project: one YAML file, overridden by variables, validated into one frozen value."""
