"""Settings of each command, and the reader that makes them of files and flags."""
