"""The square around a face, cut from RGB or NV12 frames into the networks' tensor: similarity warp, averaging, colour and scale in one
launch. What it gives is what flashlips_edge.face.crop.cut gives."""
