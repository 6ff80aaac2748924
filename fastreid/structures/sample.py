"""One image of a dataset."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its labels.

    Attributes:
        path: of the file.
        pid: person id; negative: junk, nobody's.
        camid: the camera.
        viewid: the view; 0 is aerial.
        match_id: gallery images of the query's person with the query's match id are left out of its list.
            The camera, unless the protocol counts something else as one, such as the view.
    """

    path: str
    pid: int
    camid: int
    viewid: int
    match_id: int = -1  # stands for the camera until the object is made

    def __post_init__(self) -> None:
        if self.match_id == -1:
            object.__setattr__(self, "match_id", self.camid)
