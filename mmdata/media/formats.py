"""The file formats that are read."""

from __future__ import annotations

DEMUXERS_BY_FORMAT = {
    "MP4, MOV, M4A, 3GP": "mov",
    "Matroska, WebM": "matroska,webm",
    "AVI": "avi",
    "MPEG-TS, MPEG-PS": "mpegts,mpeg",
    "ASF, WMV, WMA": "asf",
    "FLV": "flv",
    "MXF": "mxf",
    "DV": "dv",
    "RealMedia": "rm",
    "NUT": "nut",
    "IVF": "ivf",
    "YUV4MPEG": "yuv4mpegpipe",
    "GIF": "gif",
    "APNG": "apng",
    "Ogg": "ogg",
    "WAV, W64": "wav,w64",
    "FLAC": "flac",
    "MP3, MP2": "mp3",
    "AAC": "aac",
    "AMR": "amr",
    "AIFF": "aiff",
    "CAF": "caf",
    "AU": "au",
    "NIST SPHERE": "nistsphere",
    "VOC": "voc",
    "IRCAM": "ircam",
    "SoX": "sox",
    "AC-3, E-AC-3": "ac3,eac3",
    "DTS": "dts,dtshd",
    "TrueHD": "truehd",
    "WavPack": "wv",
    "TTA": "tta",
    "Monkey's Audio": "ape",
    "Musepack": "mpc,mpc8",
    "TAK": "tak",
    "DSF": "dsf",
}
"""FFmpeg's demuxers of each format. None opens other files or hosts that a file names, as HLS, DASH and concat do."""

DEMUXERS = ",".join(DEMUXERS_BY_FORMAT.values())
FORMAT_NAMES = ", ".join(DEMUXERS_BY_FORMAT)

FORMATS_WITHOUT_DURATION = frozenset({"mp3", "aac", "amr", "ac3", "eac3", "dts", "truehd"})
"""Formats whose length FFmpeg can only guess from the bit rate."""

WRAPPING_FORMATS = frozenset({"mpegts", "mpeg"})
"""Formats whose clock has 33 bits and starts anew after 26.5 hours; FFmpeg counts times before that as negative."""
