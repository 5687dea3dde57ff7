"""Options that several commands share, as annotated types.

Only ``cli`` imports it.
"""
