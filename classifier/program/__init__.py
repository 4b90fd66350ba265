"""A network as data: what an exported program says, what may be in it, and how it is run.

`document` and nothing else here may be imported without torch.
"""
