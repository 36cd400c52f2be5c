"""A rendered talking head whose lips are exactly known: people from seeds, poses, lips, and espeak-ng's speech in time.

It is training data anyone can make, the demo's avatar, and test data with true lips.
"""

from flashlips_edge.training.synthetic_head.identity import Identity
from flashlips_edge.training.synthetic_head.lips import Lips
from flashlips_edge.training.synthetic_head.pose import Pose, idle_pose_track
from flashlips_edge.training.synthetic_head.render import opening, render
from flashlips_edge.training.synthetic_head.speech import Phoneme, speak
from flashlips_edge.training.synthetic_head.visemes import lips_track

__all__ = ["Identity", "Lips", "Phoneme", "Pose", "idle_pose_track", "lips_track", "opening", "render", "speak"]
