"""CEM-Net predicts lips without emotion from audio, then adds an emotion that it reads from a trained memory."""
