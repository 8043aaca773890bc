"""Has `mel` with the arguments of librosa 0.10."""


def mel(*, sr, n_fft, n_mels=128):
    return sr, n_fft, n_mels
