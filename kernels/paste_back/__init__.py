"""The edited mouth back into RGB or NV12 frames, feathered, keeping the frame's own detail: what flashlips_edge.face.crop.paste gives,
in four launches."""
