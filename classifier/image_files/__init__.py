"""Image files, as bytes, before they are decoded: what decoding needs of them, and how much work it will be.

Both sides open files here, so both accept the same ones and see the same pixels. Imports no torch.
"""
