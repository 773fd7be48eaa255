"""Settings of each command: what a file, the flags and the help say, read by one strict reader."""
