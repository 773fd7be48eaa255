"""The host loop: configuration, records, run folder, report. The only room with files and clocks."""
