"""Python over run folders; no part of the program needs it."""
