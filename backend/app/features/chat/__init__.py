"""Chat completions whose answers are images, as OpenRouter's clients ask for them; a request for text draws nothing."""
