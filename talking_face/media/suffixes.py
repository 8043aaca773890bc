"""Lists the suffixes of file names that video and sound files have."""

_VIDEO = "mp4 m4v mov mkv webm avi flv f4v mpg mpeg vob ts m2ts mts wmv asf 3gp 3g2 ogv mxf dv y4m rm nut gif"
_AUDIO = "m4a wav aac mp3 flac ogg opus wma aif aiff ac3 mka"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split(" "))  # in lower case, with the dot
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _AUDIO.split(" "))
