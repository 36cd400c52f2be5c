"""What happened to the items that passed a place."""

from dataclasses import dataclass


@dataclass
class Counters:
    """Each is a number of items.

    entered     put in
    left        taken out
    dropped     thrown away for a newer one
    repeated    shown again because no newer one had come
    late        came after their time
    """

    entered: int = 0
    left: int = 0
    dropped: int = 0
    repeated: int = 0
    late: int = 0

    def __str__(self) -> str:
        return f"in {self.entered}, out {self.left}, dropped {self.dropped}, repeated {self.repeated}, late {self.late}"
