"""What an inference loop may hand over, by several tests."""

import numpy as np

ROWS_3 = np.zeros((3, 3), np.float32)


def raises(error):
    def method():
        raise error

    return method


class WithMethod:
    """What tensors and data frames look like."""

    def __init__(self, method, result):
        setattr(self, method, result if callable(result) else lambda: result)


class BadFloat:
    def __float__(self):
        raise ZeroDivisionError("no number")
