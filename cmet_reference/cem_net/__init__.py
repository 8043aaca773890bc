"""CEM-Net: predicts emotion-agnostic lips from audio, and adds emotion from a memory read by audio and picture."""
