"""A ROS 2 node that is a speaking face: sound or texts in, pictures out.

    python examples/ros2_node.py --ros-args -p avatar:=avatars/lobby -p voice:=espeak:en-gb

    audio           std_msgs/Int16MultiArray   in: mono PCM at the parameter sample_rate_hz
    say             std_msgs/String            in: a text, said by the parameter voice; a topic, as no service of ROS's own carries a text
    image           sensor_msgs/Image          out: rgb8, at the avatar's frame rate
    ~/interrupt     std_srvs/Trigger           silent at once
    ~/say_silence   std_srvs/Trigger           what came on audio is a whole sentence

Needs a sourced ROS 2 workspace, in whose Python flashlips-edge is installed.
"""

from __future__ import annotations

import sys
from array import array

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import Int16MultiArray, String
from std_srvs.srv import Trigger

from flashlips_edge.errors import UserError
from flashlips_edge.media.frames import Frame
from flashlips_edge.serve.speaker import Speaker
from flashlips_edge.session import LipSync
from flashlips_edge.tts.voice import open_voice


class Face(Node):
    """Owns the session. Pictures are published from the session's thread, which ROS allows; callbacks only hand on."""

    def __init__(self) -> None:
        super().__init__("flashlips_edge")
        avatar, voice = self.declare_parameter("avatar", "").value, self.declare_parameter("voice", "").value
        bundle, loudspeaker = self.declare_parameter("bundle", "").value, self.declare_parameter("loudspeaker", False).value
        self._sample_rate_hz = self.declare_parameter("sample_rate_hz", 16_000).value
        self._images = self.create_publisher(Image, "image", qos_profile_sensor_data)
        spoken = open_voice(voice, "parameter voice") if voice else None
        self._session = LipSync.open(bundle or None, avatar=avatar or None, loudspeaker=loudspeaker, on_frame=self._publish)
        self._speaker = Speaker(self._session, spoken) if spoken is not None else None
        self.create_subscription(Int16MultiArray, "audio", self._hear, 10)
        self.create_subscription(String, "say", self._say, 10)
        self.create_service(Trigger, "~/interrupt", self._interrupt)
        self.create_service(Trigger, "~/say_silence", self._say_silence)

    def destroy_node(self) -> None:
        if self._speaker is not None:
            self._speaker.close()
        self._session.close()
        super().destroy_node()

    def _publish(self, frame: Frame) -> None:
        message = Image(height=frame.height, width=frame.width, encoding="rgb8", step=3 * frame.width)
        message.header.stamp = self.get_clock().now().to_msg()
        message.header.frame_id = "face"
        message.data = array("B", frame.image.tobytes())  # rclpy looks at every byte of anything else
        self._images.publish(message)

    def _hear(self, message: Int16MultiArray) -> None:
        try:
            self._session.push_audio(np.asarray(message.data, np.int16), self._sample_rate_hz)
        except UserError as error:
            self.get_logger().error(str(error))

    def _say(self, message: String) -> None:
        if self._speaker is None:
            self.get_logger().error("say: give the parameter voice, such as espeak:en-gb")
        elif not self._speaker.say(message.data):
            self.get_logger().error("say: too many texts wait already")

    def _interrupt(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._speaker is not None:
            self._speaker.interrupt()
        self._session.interrupt()
        response.success = True
        return response

    def _say_silence(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._session.say_silence()
        response.success = True
        return response


def main() -> int:
    """The exit status: 0 after Ctrl-C or a shutdown, 2 for wrong parameters."""
    face = None
    try:
        rclpy.init()
        face = Face()
        rclpy.spin(face)
    except UserError as error:
        print(f"ros2_node: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        if face is not None:
            face.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
