"""Which packets of an H.264 stream may be left out: those of pictures that no other picture is
predicted from."""

import av

_SLICE, _SEI, _DELIMITER, _FILLER = 1, 6, 9, 12


def prefix_bytes(context: av.VideoCodecContext) -> int:
    """How many bytes state the size of each unit in a packet, as in mp4 and mkv; 0 where units are
    not stored so."""
    header = context.extradata
    if context.name != "h264" or not header or len(header) < 7 or header[0] != 1:
        return 0
    return (header[4] & 3) + 1


def unreferenced(packet: av.Packet, prefix: int) -> bool:
    """Whether the packet holds slices of an unreferenced picture and nothing that later packets
    need.

    The standard lets any of these pictures be left out (nal_ref_idc 0: "not used for reference",
    7.4.1): about half of the frames of a file that x264 wrote. False wherever there is a doubt.
    """
    data = memoryview(packet)
    place, slices = 0, 0
    while place + prefix < len(data):
        size = int.from_bytes(data[place : place + prefix], "big")
        place += prefix
        kind, referenced = data[place] & 31, data[place] >> 5 & 3
        if kind == _SLICE and not referenced:
            slices += 1
        elif kind not in (_SEI, _DELIMITER, _FILLER):
            return False
        place += size
    return slices > 0 and place == len(data)
