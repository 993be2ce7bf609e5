"""What predictions that come one by one say, with tests that may be looked at after each of them.

Pure statistics in numpy; it imports formats and options, and pages, steps and commands import it.
"""
