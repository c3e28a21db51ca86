"""The models that callers can ask for, in the form of OpenAI's list of models."""
