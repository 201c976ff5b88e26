"""Usage that the application reports itself, and usage read off an answer it holds."""
