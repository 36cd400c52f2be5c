"""A window on the screen, by tkinter: OpenCV's headless build has none."""

from types import TracebackType

import cv2

from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame

SCREEN_SHARE = 0.8  # the largest part of the screen's height or width that a picture takes


class Window:
    """Shows frames; made, used and closed in one thread. Escape, q or the close button close it.

        with Window("FlashLips Edge") as window:
            for frame in frames:
                if not window.show(frame):
                    break

    Raises UserError in one sentence if there is no display or no tkinter.
    """

    def __init__(self, title: str, argument: str = "--display"):
        problem = why_none()
        if problem is not None:
            raise UserError(f"{argument}: {problem}; leave {argument} out and give --out FILE.mp4")
        import tkinter

        self.open = True
        self._root = tkinter.Tk()
        self._root.title(title)
        self._picture = tkinter.PhotoImage(master=self._root)
        tkinter.Label(self._root, borderwidth=0, image=self._picture).pack()
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<Escape>", "q"):
            self._root.bind(key, lambda event: self.close())

    def show(self, frame: Frame) -> bool:
        """Put the frame on the screen, made smaller if it does not fit. False once the window is closed."""
        if not self.open:
            return False
        room = SCREEN_SHARE * self._root.winfo_screenwidth(), SCREEN_SHARE * self._root.winfo_screenheight()
        scale = min(1.0, room[0] / frame.width, room[1] / frame.height)
        image = frame.image
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        ppm = b"P6 %d %d 255 " % (width, height) + image.tobytes()
        self._picture.configure(data=ppm, format="PPM")
        self._root.update()
        return self.open

    def close(self) -> None:
        if self.open:
            self.open = False
            self._root.destroy()

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def why_none() -> str | None:
    """What is missing for a window, a clause; None if a window can be opened."""
    try:
        import tkinter
    except ImportError:
        return "this Python has no tkinter (sudo apt-get install python3-tk)"
    try:
        tkinter.Tk().destroy()
    except tkinter.TclError:
        return "there is no display"
    return None
