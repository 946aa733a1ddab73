"""Instruction records: tasks, templates and forms over the samples of a release."""
