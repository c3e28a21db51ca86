"""Google's interface: the same service as `/v1/generate`, in the words that clients of Gemini and Imagen speak."""
