"""Long work: pools of worker processes, and the protocol for progress reports.

Every package may import it.
"""
