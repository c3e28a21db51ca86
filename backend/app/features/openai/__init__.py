"""The twin of OpenAI's image route: the same service as `/v1/generate`, in the words that OpenAI's SDK speaks."""
