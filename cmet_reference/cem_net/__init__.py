"""CEM-Net: emotion-agnostic lips from sound, emotion from sound and picture, a memory that joins them."""
