"""Sections of a report, one file each: see `cnnspec.report.section`."""
