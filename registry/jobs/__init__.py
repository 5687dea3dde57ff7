"""Long work: pools of worker processes, and the protocol by which work reports progress.

Every package may import it.
"""
