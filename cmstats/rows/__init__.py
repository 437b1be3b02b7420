"""Rows: whatever people hand in, read as one kind of matrix, a run of rows at a time."""
