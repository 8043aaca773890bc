"""CEM-Net: predicts lips without emotion from audio, then adds emotion, which audio and picture select in a memory."""
