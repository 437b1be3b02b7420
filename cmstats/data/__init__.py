"""Packaged data: the emoji set, its licences and the script that builds it."""
