#!/usr/bin/python3
"""A real RTSP server for tests: gst-rtsp-server, run by the system's Python.

    /usr/bin/python3 tests/support/rtsp_server.py [--port 0] [--path /cam] [--file CLIP]
        [--width 320 --height 240 --fps 15] [--user U --password P] [--transport any|tcp|udp]

Without ``--file`` it shows GStreamer's moving test picture, live, shared by all clients;
with it, the clip from its beginning for every client, at its own rate. It prints
``ready PORT`` once it listens. It needs the Debian packages gir1.2-gst-rtsp-server-1.0,
python3-gi and gstreamer1.0-plugins-{base,good,bad,ugly} (and gstreamer1.0-libav for clips).

Without Python's gi module, or without an encoder, it exits with status 3 and says why.
"""

import argparse
import sys


def load():
    """The GStreamer modules, or exit 3."""
    try:
        import gi

        gi.require_version("Gst", "1.0")
        gi.require_version("GstRtsp", "1.0")
        gi.require_version("GstRtspServer", "1.0")
        from gi.repository import GLib, Gst, GstRtsp, GstRtspServer
    except (ImportError, ValueError) as error:
        print(f"gst-rtsp-server is not installed: {error}", file=sys.stderr)
        sys.exit(3)
    Gst.init(None)
    return GLib, Gst, GstRtsp, GstRtspServer


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--path", default="/cam")
    parser.add_argument("--file")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--height", type=int, default=240)
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--user")
    parser.add_argument("--password")
    parser.add_argument("--auth", choices=("basic", "digest"), default="digest")
    parser.add_argument("--transport", choices=("any", "tcp", "udp"), default="any")
    return parser.parse_args()


def launch_line(gst, options):
    """The pipeline that makes the stream."""
    encode = encoder(gst, options.fps)
    if options.file:
        name = options.file.replace("\\", "\\\\").replace('"', '\\"')
        return f'( filesrc location="{name}" ! decodebin ! videoconvert ! {encode} )'
    caps = f"video/x-raw,width={options.width},height={options.height},framerate={options.fps}/1"
    return f"( videotestsrc is-live=true pattern=smpte ! {caps} ! videoconvert ! {encode} )"


def encoder(gst, fps):
    """An H.264 encoder without delay, a key frame twice a second."""
    key = max(1, fps // 2)
    if gst.ElementFactory.find("x264enc"):
        h264 = f"x264enc tune=zerolatency speed-preset=ultrafast bitrate=2000 key-int-max={key}"
    elif gst.ElementFactory.find("openh264enc"):
        h264 = f"openh264enc gop-size={key} complexity=low"
    else:
        print("GStreamer has no H.264 encoder (x264enc, openh264enc)", file=sys.stderr)
        sys.exit(3)
    return f"video/x-raw,format=I420 ! {h264} ! h264parse ! rtph264pay name=pay0 pt=96"


def restrict(factory, transport, gst_rtsp):
    """Serve over TCP or UDP only, where that is asked for."""
    lower = gst_rtsp.RTSPLowerTrans
    if transport == "tcp":
        factory.set_protocols(lower.TCP)
    elif transport == "udp":
        factory.set_protocols(lower.UDP)


def protect(server, factory, options, gst_rtsp, rtsp_server):
    """Ask for a login."""
    auth = rtsp_server.RTSPAuth()
    token = rtsp_server.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if options.auth == "digest":
        auth.set_supported_methods(gst_rtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(options.user, options.password, token)
    else:
        basic = rtsp_server.RTSPAuth.make_basic(options.user, options.password)
        auth.add_basic(basic, token)
    server.set_auth(auth)
    permissions = rtsp_server.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)


def main():
    options = arguments()
    glib, gst, gst_rtsp, rtsp_server = load()
    server = rtsp_server.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    factory = rtsp_server.RTSPMediaFactory()
    factory.set_launch(launch_line(gst, options))
    factory.set_shared(not options.file)
    factory.set_latency(0)
    restrict(factory, options.transport, gst_rtsp)
    if options.user:
        protect(server, factory, options, gst_rtsp, rtsp_server)
    server.get_mount_points().add_factory(options.path, factory)
    if not server.attach(None):
        print(f"port {options.port} cannot be had", file=sys.stderr)
        sys.exit(1)
    print(f"ready {server.get_bound_port()}", flush=True)
    glib.MainLoop().run()


if __name__ == "__main__":
    main()
