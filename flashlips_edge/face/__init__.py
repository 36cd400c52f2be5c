"""Finding the face in a frame, following it, cutting the crop and pasting the edited mouth back."""
