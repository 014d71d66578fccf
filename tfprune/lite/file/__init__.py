"""The `.tflite` file: read, looked into, run, and written back."""
