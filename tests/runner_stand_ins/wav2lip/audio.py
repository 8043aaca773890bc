"""Reads the sound as Wav2Lip's audio.py does: mel bands of librosa by position. Not their code."""

import wave

import librosa

librosa.filters.mel(16000, 800, n_mels=80)


def steps(path):
    with wave.open(path) as file:
        return file.getnframes() // 200 + 1
