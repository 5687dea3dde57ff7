"""The figures of the paper, drawn from the registry: what they show is read and drawn here, ``cli.cmd_plot`` asks."""
