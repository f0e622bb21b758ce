"""The command line: one file a command, arguments and exit codes only.

What a command does is done elsewhere; nothing is computed here.
"""
