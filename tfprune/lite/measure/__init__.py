"""What a `.tflite` file answers and costs, measured."""
